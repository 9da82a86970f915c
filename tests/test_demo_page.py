"""The demo page: what it takes and refuses over HTTP, and how it works in a browser."""

import base64
import http.client
import io
import json
import re
import shutil
import socket
import struct
import threading
import zlib

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.file import load_config
from swinv2_mm.demo_page.attention_view import pixel_seen
from swinv2_mm.demo_page.model_shelf import ModelShelf, describe_model, find_models
from swinv2_mm.demo_page.server import PageServer
from swinv2_mm.demo_page.uploads import decode_upload
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference.preparation import build_preparation, prepare_config

CONFIGS = [
    'classification/swinv2-nano-w8_digits.py',
    'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
]


@pytest.fixture(scope='module')
def work_dirs(tmp_path_factory):
    """Work dirs as training leaves them, of untrained models."""
    root = tmp_path_factory.mktemp('work_dirs')
    for name in CONFIGS:
        cfg = load_config(str(ROOT / 'configs' / name))
        if 'detection' in name:  # an untrained one is sure of nothing
            cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=4)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        with torch.no_grad():
            for value in model.parameters():
                value += 0.02 * torch.randn_like(value)
        folder = root / name.partition('/')[2].removesuffix('.py')
        folder.mkdir()
        cfg.dump(folder / f'{folder.name}.py')
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'iter_9.pth')
        (folder / 'last_checkpoint').write_text(f'/elsewhere/{folder.name}/iter_9.pth')
    return root


@pytest.fixture(scope='module')
def server(work_dirs):
    choices = find_models(work_dirs)
    with PageServer(ModelShelf(choices, device='cpu'), max_bytes=1 << 20) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def photo(digits_root):
    return sorted((digits_root / 'digits' / 'images' / 'val').iterdir())[0]


def ask(server, path, *, body=None, method=None, **headers):
    connection = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=60)
    headers = {name.replace('_', '-'): value for name, value in headers.items()}
    connection.request(method or ('GET' if body is None else 'POST'), path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    is_json = answer.headers['Content-Type'] == 'application/json'
    return answer, json.loads(content) if is_json else content.decode()


def number_of(server, task):
    return next(i for i, c in enumerate(server.shelf.choices) if c.task == task)


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
    found = find_models(work_dirs)
    assert sorted(c.task for c in found) == ['classification', 'detection']
    shutil.copytree(work_dirs, tmp_path / 'again')
    run = tmp_path / 'again' / 'swinv2-nano-w8_digits'
    (run / 'best_accuracy_top1_epoch_3.pth').touch()
    (best,) = [c for c in find_models(tmp_path / 'again') if c.task == 'classification']
    assert best.weights.endswith('best_accuracy_top1_epoch_3.pth')


def test_predicts(server, photo):
    original = cv2.imread(str(photo))
    pictures = {}
    for task in ('classification', 'detection'):
        path = f'/predict?model={number_of(server, task)}&threshold=0.0'
        answer, content = ask(server, path, body=photo.read_bytes())
        assert answer.status == 200 and content['task'] == task
        assert (content['height'], content['width']) == original.shape[:2]
        coded = np.frombuffer(base64.b64decode(content['picture']), np.uint8)
        pictures[task] = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        values = [row['value'] for row in content['rows']]
        assert values == sorted(values, reverse=True)
    assert len(values) == 4
    assert pictures['detection'].shape == original.shape
    _, content = ask(server, path.replace('0.0', '1.0'), body=photo.read_bytes())
    assert content['rows'] == []


def test_attention(server, photo):
    height, width = cv2.imread(str(photo)).shape[:2]
    path = f'/attention?model={{}}&x={width - 1}&y={height - 1}&window={{}}'
    pictures = []
    for task in ('classification', 'detection'):
        for window in ('', '3'):
            path_of = path.format(number_of(server, task), window)
            answer, content = ask(server, path_of, body=photo.read_bytes())
            assert answer.status == 200, content
            coded = np.frombuffer(base64.b64decode(content['picture']), np.uint8)
            pictures.append(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    assert all(picture.std() > 10 for picture in pictures)
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()
    path = f'/attention?model=0&x={width}&y=0'
    answer, content = ask(server, path, body=photo.read_bytes())
    assert answer.status == 422 and 'outside of the' in content['error']


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


def test_window_is_for_one_request(server, photo):
    path = f'/predict?model={number_of(server, "classification")}&window='
    rows = [ask(server, path + w, body=photo.read_bytes())[1]['rows'] for w in ('', '3', '')]
    assert rows[0] == rows[2] != rows[1]


@pytest.mark.parametrize(
    ('query', 'status', 'words'),
    [
        ('model=7', 400, 'no such model'),
        ('model=-1', 400, 'must be a whole number'),
        ('model=0&x=1e3', 400, 'must be a whole number'),
        ('model=0&y=' + '9' * 10, 400, 'must be a whole number'),
        ('model=0&window=0', 422, 'whole number'),
        ('model=0&window=65', 422, 'whole number'),
        ('model=0&window=1e1', 422, 'whole number'),
        ('model=0&threshold=nan', 400, 'from 0 to 1'),
        ('model=0&threshold=2', 400, 'from 0 to 1'),
    ],
)
def test_bad_requests(query, status, words, server, photo):
    answer, content = ask(server, f'/predict?{query}', body=photo.read_bytes())
    assert answer.status == status and words in content['error']


def test_hostile_uploads(server, photo):
    grey = Image.new('L', (40, 30))
    uploads = {
        'nothing': b'',
        'text': b'hello' * 100,
        'page': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        'half a photo': photo.read_bytes()[:2000],
        'a bomb': saved(Image.new('1', (20000, 20000)), 'PNG', optimize=True),
        'a claim': png_header(100_000, 100_000),
        'a smaller claim': png_header(6000, 6000),
        'postscript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n',
        'another format': saved(grey, 'TIFF'),
        'a program': b'\x7fELF' + bytes(2000),
    }
    for name, content in uploads.items():
        answer, reply = ask(server, '/predict?model=0', body=content)
        assert answer.status == 422, name
        assert reply['error'] and 'Traceback' not in reply['error'], name
    assert ask(server, '/predict?model=0', body=photo.read_bytes())[0].status == 200


def test_images_of_all_kinds():
    colours = Image.fromarray(np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3))
    for kind in ('PNG', 'BMP'):
        assert (decode_upload(saved(colours, kind))[..., ::-1] == np.asarray(colours)).all()
    for image in (colours.convert('L'), colours.convert('RGBA'), colours.convert('P')):
        assert decode_upload(saved(image, 'PNG')).shape == (30, 40, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert decode_upload(saved(colours, 'JPEG', exif=exif)).shape == (40, 30, 3)
    with pytest.raises(DataError, match='40 x 30'):
        decode_upload(saved(colours, 'PNG'), max_pixels=1199)


def test_size_is_checked_before_reading(server):
    with socket.create_connection(('127.0.0.1', server.server_port), timeout=20) as connection:
        head = 'POST /predict?model=0 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n'
        connection.sendall(head.format(1 << 40).encode())
        assert b' 413 ' in connection.recv(1000).splitlines()[0]
    answer, _ = ask(server, '/predict?model=0', body=iter([b'x']), Transfer_Encoding='chunked')
    assert answer.status == 411
    assert ask(server, '/predict?model=0', body=b'', Content_Length='-5')[0].status == 411


def test_other_sites_are_refused(server, photo):
    assert ask(server, '/', Host='evil.example')[0].status == 403
    answer, _ = ask(
        server, '/predict?model=0', body=photo.read_bytes(), Origin='http://evil.example'
    )
    assert answer.status == 403
    port = server.server_port
    answer, _ = ask(server, '/', Host=f'localhost:{port}', Origin=f'http://localhost:{port}')
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers['Content-Security-Policy']
    assert server.server_address[0] == '127.0.0.1'


def test_only_its_own_files(server):
    for path in ('/../server.py', '/page.py', '/%2e%2e/server.py', '//etc/passwd', '/predict'):
        assert ask(server, path)[0].status == 404
    assert ask(server, '/models', body=b'')[0].status == 404
    assert ask(server, '/', method='DELETE')[0].status == 501


def test_tool_refuses(tool, tmp_path, work_dirs):
    run = work_dirs / 'swinv2-nano-w8_digits'
    config, weights = run / 'swinv2-nano-w8_digits.py', run / 'iter_9.pth'
    for arguments, words in (
        (['--work-dirs', tmp_path], 'no trained model'),
        (['--model', tmp_path / 'no.py', weights], 'no.py does not exist'),
        (['--model', config, tmp_path / 'no.pth'], 'no.pth does not exist'),
        (['--model', config, weights, '--host', 'not an address'], 'cannot listen'),
        (['--model', config, weights, '--port', '99999'], 'cannot listen'),
    ):
        status, errors = tool('demo', *arguments)
        assert status == 1 and words in errors.strip().splitlines()[-1]
    assert describe_model(str(config), str(weights)).name == 'swinv2-nano-w8_digits (iter_9)'


@pytest.fixture(scope='module')
def browser():
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('needs chromium (apt-get install chromium)')
    api = pytest.importorskip(
        'playwright.sync_api', reason='pip install -r requirements/browser.txt'
    )
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.mark.parametrize('width', [360, 1280])
def test_in_a_browser(width, browser, server, photo, tmp_path):
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    page = browser.new_page(viewport={'width': width, 'height': 800})
    problems = []
    page.on('console', lambda message: problems.append(message.text))
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector('#model option', state='attached')
    assert page.locator('#model option').count() == 2
    assert page.is_disabled('#run')
    detector = number_of(server, 'detection')
    page.select_option('#model', str(1 - detector))
    assert page.is_hidden('#threshold-field')
    page.set_input_files('#file', photo)
    page.wait_for_selector('#figure', state='visible')
    assert page.text_content('#status').startswith('This looks like')
    assert page.locator('#rows tr').count() == 5

    page.select_option('#model', str(detector))
    expect(page.locator('#status')).to_have_text(re.compile('^Found'))
    assert page.is_visible('#threshold-field')
    page.focus('#threshold')
    page.keyboard.press('Home')
    expect(page.locator('#rows tr')).to_have_count(4)
    assert page.text_content('#threshold-value') == '0.00'
    drawn = page.get_attribute('#picture', 'src')
    page.check('#original')
    assert page.get_attribute('#picture', 'src').startswith('blob:') and drawn.startswith('data:')
    picture = page.locator('#picture')
    for _ in range(200):  # the page's policy forbids the evaluation that wait_for_function needs
        if picture.evaluate('image => image.naturalWidth'):
            break
        page.wait_for_timeout(50)
    assert picture.evaluate('image => image.naturalWidth') > 0

    # The middle of the picture is the middle of the image, whatever bars there are beside it.
    expect(page.locator('#form')).not_to_have_attribute('aria-busy', 'true')
    box = picture.bounding_box()
    picture.click(position={'x': box['width'] / 2, 'y': box['height'] / 2})
    half_height, half_width = (side // 2 for side in cv2.imread(str(photo)).shape[:2])
    near = re.compile(f'pixel ({half_width}|{half_width - 1}), ({half_height}|{half_height - 1}):')
    expect(page.locator('#status')).to_contain_text(near)
    assert page.is_visible('#attention')
    page.select_option('#model', str(1 - detector))
    expect(page.locator('#status')).to_contain_text('looks like')
    assert page.is_hidden('#attention')
    page.focus('#picture')
    page.keyboard.press('Enter')
    expect(page.locator('#status')).to_contain_text(near)
    # Nothing sticks out, and every control has a name.
    assert page.evaluate('document.documentElement.scrollWidth') == width
    for control in page.locator('input, select, button').all():
        assert control.evaluate('c => (c.labels?.[0] ?? c).textContent.trim()')
    assert problems == []

    (tmp_path / 'broken.jpg').write_bytes(photo.read_bytes()[:2000])
    page.set_input_files('#file', tmp_path / 'broken.jpg')
    page.wait_for_selector('#status.bad')
    assert 'not a complete' in page.text_content('#status')
    (tmp_path / 'large.jpg').write_bytes(bytes((1 << 20) + 1))
    page.set_input_files('#file', tmp_path / 'large.jpg')
    expect(page.locator('#status')).to_contain_text('1 MB')
    page.close()
