"""The demo page: models on offer, predictions, refusals, and all of it in a browser."""

import ast
import io
import json
import re
import shlex
import shutil
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from accessibility import serious_findings
from conftest import ROOT
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

import swinv2_mm.models  # noqa: F401
from swinv2_mm.cli.commands.infer import main as infer_main
from swinv2_mm.config.file import load_config
from swinv2_mm.datasets.image_files import ImageLimits
from swinv2_mm.demo_page.attention_view import pixel_seen
from swinv2_mm.demo_page.model_shelf import ModelShelf, describe_model, find_models
from swinv2_mm.errors import UserError
from swinv2_mm.inference.preparation import build_preparation, prepare_config

gradio = pytest.importorskip('gradio', reason='pip install -r requirements/demo_page.txt')
callbacks = pytest.importorskip('swinv2_mm.demo_page.callbacks')
page_module = pytest.importorskip('swinv2_mm.demo_page.page')

CONFIGS = {
    'classification': 'classification/swinv2-nano-w8_digits.py',
    'detection': 'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
    'segmentation': 'segmentation/upernet_swinv2-nano-w8_digits.py',
}
LIMITS = ImageLimits(num_bytes=1 << 20, num_pixels=1_000_000, side_px=2000, aspect_ratio=100)


@pytest.fixture(scope='module')
def work_dirs(tmp_path_factory, digits_root):
    """Work dirs as training leaves them, of untrained models."""
    root = tmp_path_factory.mktemp('work_dirs')
    for task, name in CONFIGS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('SWINV2_DATA', str(digits_root))
            cfg = load_config(str(ROOT / 'configs' / name))
        if task == 'detection':  # an untrained one is sure of nothing
            cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=4)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        with torch.no_grad():
            for value in model.parameters():
                value += 0.02 * torch.randn_like(value)
        folder = root / task
        folder.mkdir()
        cfg.dump(folder / f'{task}.py')
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'iter_9.pth')
        (folder / 'last_checkpoint').write_text(f'/elsewhere/{task}/iter_9.pth')
    return root


@pytest.fixture(scope='module')
def shelf(work_dirs):
    return ModelShelf(find_models(work_dirs)[0], device='cpu')


@pytest.fixture(scope='module')
def url(shelf):
    with page_module.serving(shelf, limits=LIMITS) as url:
        yield url


@pytest.fixture
def calls(shelf, tmp_path, monkeypatch):
    """The functions behind the page."""
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))
    return callbacks.Callbacks(shelf, LIMITS)


@pytest.fixture
def photo(digits_root):
    return str(sorted((digits_root / 'digits' / 'images' / 'val').iterdir())[0])


def number_of(shelf, task):
    return next(i for i, c in enumerate(shelf.choices) if c.task == task)


def png_header(width, height):
    """A PNG that only claims to be large."""
    chunks = [(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))]
    chunks += [(b'IDAT', zlib.compress(b'\0' * 100)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(c)) + k + c + struct.pack('>I', zlib.crc32(k + c)) for k, c in chunks
    )


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_finds_trainings(work_dirs, tmp_path):
    found, left_out = find_models(work_dirs)
    assert sorted(c.task for c in found) == sorted(CONFIGS) and left_out == []
    shutil.copytree(work_dirs, tmp_path / 'again')
    (tmp_path / 'again' / 'segmentation' / 'best_mIoU_iter_3.pth').touch()
    (tmp_path / 'again' / 'detection' / 'second.py').touch()
    found, left_out = find_models(tmp_path / 'again')
    (best,) = (c for c in found if c.task == 'segmentation')
    assert best.weights.endswith('best_mIoU_iter_3.pth')
    assert len(found) == 2 and len(left_out) == 1 and 'second.py' in left_out[0]
    choice = describe_model(best.config, best.weights)
    assert choice.name == 'segmentation (best_mIoU_iter_3)'


@pytest.mark.parametrize('task', CONFIGS)
def test_predicts(task, url, shelf, photo):
    """Over HTTP, by the client that Gradio brings."""
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    status, picture, _, table, saved_picture, saved_json, content = client.predict(
        handle_file(photo), number_of(shelf, task), 0, 0.0, api_name='/predict'
    )
    height, width = cv2.imread(photo).shape[:2]
    assert (content['height'], content['width']) == (height, width)
    assert f'{width} x {height}' in status
    with open(saved_json['value'] if isinstance(saved_json, dict) else saved_json) as file:
        assert json.load(file) == content
    assert min(cv2.imread(picture).shape[:2]) >= 480
    rows = {
        'classification': lambda: content['best'],
        'detection': lambda: content['detections'],
        'segmentation': lambda: content['shares'],
    }[task]()
    assert table.count('<td>') == 2 * len(rows) > 0
    assert saved_picture


def test_several_images(calls, shelf, photo, tmp_path):
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'not an image')
    number = number_of(shelf, 'segmentation')
    status, shown, zipped = calls.predict_all([photo, str(broken), photo], number, 0, 0.3)
    assert 'Images: 2' in status and 'broken.jpg' in status and str(tmp_path) not in status
    assert all(cv2.imread(path) is not None and 'Classes' in text for path, text in shown)
    with zipfile.ZipFile(zipped['value']) as archive:
        names = set(archive.namelist())
        lines = [json.loads(line) for line in archive.read('predictions.jsonl').splitlines()]
        assert json.loads(archive.read('run.json'))['task'] == 'segmentation'
    stem = Path(photo).stem
    for folder, suffix in (('pictures', 'jpg'), ('label_maps', 'png')):
        assert {f'{folder}/{stem}.{suffix}', f'{folder}/{stem}-2.{suffix}'} <= names
    assert [line['file'] for line in lines] == [Path(photo).name] * 2
    assert lines[0]['shares'] == calls.predict(photo, number, 0, 0.3)[-1]['shares']
    for paths, words in ((None, 'choose'), ([photo] * 51, 'at most 50')):
        with pytest.raises(gradio.Error) as refusal:
            calls.predict_all(paths, number, 0, 0.3)
        assert words in refusal.value.message


@pytest.mark.parametrize('task', CONFIGS)
def test_examples_are_of_the_validation_set(task, calls, shelf, digits_root):
    number = number_of(shelf, task)
    small = calls.thumbnails(number)
    assert small['visible'] is True and 1 < len(small['value']) <= 8
    assert max(cv2.imread(small['value'][-1]).shape) == 240
    chosen = calls.example(number, SimpleNamespace(index=1))
    val = (digits_root / 'digits').rglob(f'val/**/{Path(chosen).name}')
    assert Path(chosen).read_bytes() in [path.read_bytes() for path in val if path.is_file()]


@pytest.mark.parametrize('window', [0, 3])
def test_the_lines_do_the_same(window, calls, shelf, photo, tmp_path, monkeypatch, capsys):
    """Python and command predict what the page does, for the settings that it has."""
    number = number_of(shelf, 'detection')
    python, command = calls.code(photo, number, window, 0.05)
    expected = calls.predict(photo, number, window, 0.05)
    monkeypatch.chdir(Path(photo).parent)
    words = shlex.split(command)
    assert words[:3] == ['swinv2-mm', 'infer', Path(photo).name]
    with monkeypatch.context() as patch:
        patch.setattr('cv2.imwrite', lambda name, picture: drawn.append(picture))
        drawn = []
        exec(python, {})
    found = ast.literal_eval(capsys.readouterr().out)['detections']
    assert [d for d in found if d['score'] >= 0.05] == expected[-1]['detections']
    saved_picture = cv2.imread(expected[1])
    assert drawn[0].shape == saved_picture.shape
    assert abs(drawn[0].astype(int) - saved_picture).mean() < 4, 'but for JPEG'
    infer_main([*words[2:], '--out', str(tmp_path / 'out')])
    (line,) = (tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()
    assert json.loads(line)['detections'] == found


def test_threshold_and_window(calls, shelf, photo):
    number = number_of(shelf, 'detection')
    assert len(calls.predict(photo, number, 0, 0.0)[-1]['detections']) == 4
    assert calls.predict(photo, number, None, 1.0)[-1]['detections'] == []
    assert calls.threshold_visibility(number) is True
    number = number_of(shelf, 'classification')
    assert calls.threshold_visibility(number) != True  # noqa: E712  Gradio's 'hidden' is a word
    best = [calls.predict(photo, number, window, 0.3)[-1]['best'] for window in (0, 3, 0)]
    assert best[0] == best[2] != best[1], 'a window is for one request'


@pytest.mark.parametrize('task', CONFIGS)
def test_attention(task, calls, shelf, photo):
    """The corner of the enlarged picture is the corner of the image."""
    height, width = cv2.imread(photo).shape[:2]
    drawn = cv2.imread(calls.predict(photo, number_of(shelf, task), 0, 0.3)[1])
    click = SimpleNamespace(index=[drawn.shape[1] - 1, drawn.shape[0] - 1])
    pictures = []
    for window in (0, 3):
        status, update = calls.look(photo, number_of(shelf, task), window, click)
        assert f'pixel {width - 1}, {height - 1}' in status
        pictures.append(cv2.imread(update['value']))
    assert all(picture.std() > 10 for picture in pictures)
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()


def test_a_pixel_is_found_where_the_pipeline_puts_it():
    """A dot in the original is at that place of what the model takes."""
    for name, size in (
        ('classification/swinv2-t-w8_16xb64_in1k-256.py', (300, 500)),
        ('detection/cascade-mask-rcnn_swinv2-t-w16_fpn_1x_coco.py', (300, 500)),
        ('segmentation/upernet_swinv2-t-w16_8xb2-160k_ade20k-512.py', (700, 600)),
    ):
        cfg = load_config(str(ROOT / 'configs' / name))
        prepare_config(cfg)
        prepare = build_preparation(cfg)
        for pixel in ((150, 250), (170, 201)):
            image = np.zeros((*size, 3), np.uint8)
            image[pixel[0] - 3 : pixel[0] + 4, pixel[1] - 3 : pixel[1] + 4] = 255
            loaded = prepare(image, 0)
            place = (loaded.data['inputs'][0] > 127).nonzero().float().mean(0).tolist()
            assert pixel_seen(loaded, pixel) == pytest.approx(place, abs=2), name
        if name.startswith('classification'):
            with pytest.raises(UserError, match='middle'):
                pixel_seen(loaded, (5, 5))
    with pytest.raises(UserError, match='outside'):
        pixel_seen(loaded, (700, 0))


def test_hostile_uploads(calls, photo, tmp_path, monkeypatch, capsys):
    """Each is refused in a sentence, none is decoded, and the next image is predicted."""
    with open(photo, 'rb') as file:
        half = file.read(2000)
    uploads = {
        'nothing': b'',
        'text': b'hello' * 100,
        'page': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        'half a photo': half,
        'long': saved(Image.new('1', (70000, 1)), 'PNG'),
        'narrow': saved(Image.new('1', (1500, 10)), 'PNG'),
        'a bomb': saved(Image.new('1', (20000, 20000)), 'PNG', optimize=True),
        'a claim': png_header(100_000, 100_000),
        'a smaller claim': png_header(1001, 1000),
        'large': b'\x89PNG' + bytes(LIMITS.num_bytes),
        'postscript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n',
        'a program': b'\x7fELF' + bytes(2000),
    }
    path = tmp_path / 'folder' / 'image.png'
    path.parent.mkdir()
    for name, content in uploads.items():
        path.write_bytes(content)
        with monkeypatch.context() as patch:
            if name != 'half a photo':
                patch.setattr('PIL.ImageFile.ImageFile.load', lambda _: pytest.fail('was decoded'))
            with pytest.raises(gradio.Error) as refusal:
                calls.predict(str(path), 0, 0, 0.3)
        assert 'image.png' in refusal.value.message and 'folder' not in refusal.value.message, name
    assert 'Traceback' not in capsys.readouterr().err
    assert calls.predict(photo, 0, 0, 0.3)[1] is not None
    assert calls.predict(None, 0, 0, 0.3)[1] is None, 'the image was removed'


def test_uploads_are_not_decoded_by_gradio(url, tmp_path):
    """A file of few bytes and 70000 x 1 pixels, on its whole way."""
    from gradio_client import Client, handle_file

    path = tmp_path / 'long.png'
    path.write_bytes(saved(Image.new('1', (70000, 1)), 'PNG'))
    client = Client(url, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('PIL.ImageFile.ImageFile.load', lambda _: 1 / 0)
        with pytest.raises(Exception, match='70,000 x 1 pixels'):
            client.predict(handle_file(path), 0, 0, 0.3, api_name='/predict')


def test_a_failure_is_told_and_logged(calls, photo, monkeypatch, capsys):
    monkeypatch.setattr(ModelShelf, 'predict', lambda *_, **__: 1 / 0)
    with pytest.raises(gradio.Error, match='failed on this image'):
        calls.predict(photo, 0, 0, 0.3)
    assert 'ZeroDivisionError' in capsys.readouterr().err


def test_command_refuses(tool, tmp_path, work_dirs, monkeypatch):
    config, weights = work_dirs / 'detection/detection.py', work_dirs / 'detection/iter_9.pth'
    for arguments, words in (
        (['--work-dirs', tmp_path], 'no trained model'),
        (['--model', tmp_path / 'no.py', weights], 'no.py does not exist'),
        (['--model', config, tmp_path / 'no.pth'], 'no.pth does not exist'),
        (['--model', config, weights, '--host', 'not an address'], 'cannot listen'),
        (['--model', config, weights, '--port', '99999'], 'cannot listen'),
    ):
        status, errors = tool('demo', *arguments)
        assert status == 1 and words in errors.strip().splitlines()[-1]


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.delitem(sys.modules, 'swinv2_mm.demo_page.offline_gradio')
    with pytest.raises(UserError, match='pip install'):
        import swinv2_mm.demo_page.offline_gradio  # noqa: F401


@pytest.mark.parametrize('width', [360, 1280])
def test_in_a_browser(width, browser, url, shelf, photo, tmp_path):
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    page = browser.new_page(viewport={'width': width, 'height': 800})
    page.set_default_timeout(60_000)
    problems, elsewhere = [], []
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.on(
        'request',
        lambda request: (
            request.url.startswith((url, 'data:', 'blob:')) or elsewhere.append(request.url)
        ),
    )
    page.goto(url)
    upload = page.locator('#upload input[type=file]')
    upload.set_input_files(photo)
    expect(page.locator('#picture img')).to_be_visible()
    expect(page.locator('#status')).to_contain_text('Best class')
    expect(page.get_by_label('Score threshold').first).to_be_hidden()

    for task, words in (('detection', 'Objects'), ('segmentation', 'Classes')):
        page.get_by_label('Model').click()
        page.get_by_role('option', name=task).click()
        expect(page.locator('#status')).to_contain_text(words)
    page.wait_for_load_state('networkidle')
    picture = page.locator('#picture img')
    box = picture.bounding_box()
    picture.click(position={'x': box['width'] / 2, 'y': box['height'] / 2})
    half_height, half_width = (side // 2 for side in cv2.imread(photo).shape[:2])
    near = f'pixel ({half_width}|{half_width - 1}), ({half_height}|{half_height - 1})'
    expect(page.locator('#status')).to_contain_text(re.compile(near))
    expect(page.locator('#attention img')).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role('button', name='Save JSON').click()
    assert json.loads(download.value.path().read_text())['shares']
    assert page.evaluate('document.documentElement.scrollWidth') == width, 'nothing sticks out'
    assert 'segmentation.py' in page.locator('#python').inner_text()
    assert 'swinv2-mm infer' in page.locator('#shell').inner_text()
    assert problems == [] and elsewhere == [], 'neither a script failed nor was the network used'

    (tmp_path / 'broken.jpg').write_bytes(b'not an image')
    page.get_by_label('Remove Image').click()
    upload.set_input_files(tmp_path / 'broken.jpg')
    expect(page.get_by_text('broken.jpg cannot be read')).to_be_visible()
    page.close()


def test_other_ways_to_give_an_image(browser, url, shelf, photo):
    """Examples, the clipboard, the camera, and several files."""
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    context = browser.new_context(permissions=['clipboard-read', 'clipboard-write', 'camera'])
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(url)
    status = page.locator('#status')
    page.locator('#examples button').nth(2).click()
    expect(status).to_contain_text('64 x 64 pixels')

    page.get_by_label('Remove Image').click()
    expect(status).to_contain_text('will appear here')
    page.evaluate("""async () => {
        const canvas = new OffscreenCanvas(70, 50);
        canvas.getContext('2d').fillRect(5, 5, 9, 9);
        const image = await canvas.convertToBlob({type: 'image/png'});
        await navigator.clipboard.write([new ClipboardItem({'image/png': image})]);
    }""")
    page.get_by_label('Paste from clipboard').click()
    expect(status).to_contain_text('70 x 50 pixels')

    page.get_by_label('Remove Image').click()
    page.get_by_label('Capture from camera').click()
    page.get_by_text('Click to Access Webcam').click()
    page.wait_for_function("document.querySelector('#upload video')?.videoWidth > 0")
    page.get_by_label('capture photo').click()
    # The camera arrives, and has more pixels than this page takes.
    expect(page.get_by_text(re.compile('1,920 x 1,440 pixels'))).to_be_visible()

    page.get_by_role('tab', name='Several images').click()
    page.locator('#files input[type=file]').set_input_files([photo, photo])
    page.get_by_role('button', name='Predict all').click()
    expect(page.locator('#status-of-all')).to_contain_text('Images: 2')
    expect(page.locator('#gallery img')).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role('button', name='Save all').click()
    assert zipfile.is_zipfile(download.value.path())
    context.close()


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_the_page_hinders_nobody(theme, browser, url, photo):
    """Names, contrast, keyboard: axe-core finds nothing serious before and after a prediction."""
    from playwright.sync_api import expect

    page = browser.new_page(viewport={'width': 1280, 'height': 900})
    page.goto(f'{url}?__theme={theme}')
    expect(page.locator('#examples img').first).to_be_visible(timeout=60_000)
    page.wait_for_function('document.title')
    assert serious_findings(page) == []
    page.locator('#upload input[type=file]').set_input_files(photo)
    expect(page.locator('#status')).to_contain_text('Best class', timeout=60_000)
    for name in ('Save image', 'Save JSON'):
        expect(page.get_by_role('button', name=name)).to_be_enabled()
    page.wait_for_load_state('networkidle')
    assert serious_findings(page) == []
    page.close()
