"""Predictions for files that belong to no data set: the interface and tools/infer.py."""

import io
import json
import os
import shutil
import subprocess
import sys
import weakref
from argparse import ArgumentTypeError
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image

import swinv2_mm.models  # noqa: F401
from swinv2_mm import SwinV2Inferencer
from swinv2_mm.cli.arguments import parse_windows
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference.class_names import find_classes
from swinv2_mm.inference.coco_files import read_numbers
from swinv2_mm.inference.identity import config_identity, file_identity
from swinv2_mm.inference.output_folder import OutputFolder, result_folders
from swinv2_mm.inference.prediction import Prediction
from swinv2_mm.inference.sources import find_sources, passed_over
from swinv2_mm.inference.tiles import TiledPrediction
from swinv2_mm.inference.video import VideoReader, VideoWriter

CONFIGS = {
    'classification': 'swinv2-nano-w8_digits.py',
    'segmentation': 'upernet_swinv2-nano-w8_digits.py',
    'detection': 'cascade-mask-rcnn_swinv2-nano-w8_digits.py',
}
NAMES = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
# An untrained detector is sure of nothing.
OPTIONS = {'detection': ['model.test_cfg.rcnn.score_thr=0.0', 'model.test_cfg.rcnn.max_per_img=5']}


def config_of(task):
    return str(ROOT / 'configs' / task / CONFIGS[task])


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A checkpoint per task as training writes it, of untrained models."""
    folder = tmp_path_factory.mktemp('weights')
    for task in CONFIGS:
        cfg = load_config(config_of(task))
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        model.init_weights()
        with torch.no_grad():  # norms start at 0: nothing that blocks do would be seen
            for value in model.parameters():
                value += 0.02 * torch.randn_like(value)
        names = NAMES[::-1] if task == 'classification' else NAMES
        names = ['photograph', *NAMES] if task == 'segmentation' else names
        meta = {'dataset_meta': {'classes': tuple(names)}, 'config': 'raise SystemExit'}
        state = {'state_dict': model.state_dict(), 'meta': meta}
        torch.save(state, folder / f'{task}.pth')
    return folder


@pytest.fixture(scope='module')
def inferencers(weights):
    return {
        task: SwinV2Inferencer(
            config_of(task), weights / f'{task}.pth', device='cpu', options=OPTIONS.get(task, ())
        )
        for task in CONFIGS
    }


@pytest.fixture(scope='module')
def images(digits_root):
    return sorted((digits_root / 'digits' / 'images' / 'val').iterdir())


def numbers(sample):
    """All predicted values of a data sample in one row."""
    if 'pred_instances' in sample:
        found = sample.pred_instances
        parts = [found.bboxes, found.scores, found.labels, found.masks]
    elif 'pred_sem_seg' in sample:
        parts = [sample.pred_sem_seg.data]
    else:
        parts = [sample.pred_score]
    return torch.cat([part.detach().double().flatten() for part in parts])


@pytest.mark.parametrize('task', CONFIGS)
def test_predicts_what_a_test_run_predicts(task, inferencers, use_data):
    cfg = load_config(config_of(task))
    inferencer = inferencers[task]
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.no_grad():
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        entries = [dataset[i] for i in range(2)]
        expected = [inferencer.model.test_step(pseudo_collate([e]))[0] for e in entries]
    paths = [sample.img_path for sample in expected]
    found = list(inferencer(paths))
    assert [p.source for p in found] == paths
    for prediction, sample in zip(found, expected, strict=True):
        assert len(numbers(sample)) > 0
        torch.testing.assert_close(numbers(prediction.sample), numbers(sample))


@pytest.mark.parametrize('task', CONFIGS)
def test_batches_of_mixed_sizes(task, inferencers, images):
    arrays = [cv2.imread(str(path)) for path in images]
    arrays[1] = np.ascontiguousarray(arrays[1][:100])
    singly = list(inferencers[task](arrays))
    together = list(inferencers[task](iter(arrays), batch_size=3))
    assert len(together) == len(arrays)
    for one, other, array in zip(singly, together, arrays, strict=True):
        assert other.image is array
        a, b = numbers(one.sample), numbers(other.sample)
        if task == 'segmentation':  # where two classes are equally likely
            assert (a == b).double().mean() > 0.999
        else:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_memory_does_not_grow(inferencers, images):
    """Nothing is kept of what has been yielded, and inputs are only read as they are needed."""
    image = cv2.imread(str(images[0]))[:64, :64].copy()
    given, alive = 0, set()

    def endless():
        nonlocal given
        while True:
            given += 1
            yield image.copy()

    stream = inferencers['classification'](endless(), batch_size=4)
    for number, prediction in enumerate(stream):
        alive.add(number)
        weakref.finalize(prediction, alive.discard, number)
        assert len(alive) <= 2
        assert given <= number + 20
        if number == 100:
            break


def test_records_and_pictures(inferencers, images):
    (found,) = inferencers['detection'](images[0])
    record = json.loads(json.dumps(found.to_dict()))
    scores = [d['score'] for d in record['detections']]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    from pycocotools import mask as coco_mask

    order = found.sample.pred_instances.scores.argsort(descending=True, stable=True)
    for detection, row in zip(record['detections'], order.tolist(), strict=True):
        instance = found.sample.pred_instances[row]
        assert detection['class'] == NAMES[int(instance.labels)]
        mask = coco_mask.decode(detection['segmentation'])
        assert (mask == instance.masks[0].numpy()).all()
    drawn = inferencers['detection'].draw(found, score_threshold=0.0)
    unmarked = inferencers['detection'].draw(found, score_threshold=1.0)
    assert drawn.shape == unmarked.shape and (drawn != unmarked).any()

    (found,) = inferencers['segmentation'](images[0])
    shares = found.to_dict()['shares']
    assert all(type(share) is float for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3) and set(shares) <= {
        'photograph',
        *NAMES,
    }

    (found,) = inferencers['classification'](images[0])
    best = found.to_dict()['best']
    assert len(best) == 5 and best[0]['label'] == int(found.sample.pred_label)
    assert best[0]['class'] == NAMES[::-1][best[0]['label']], 'names come from the checkpoint'


def test_window_and_its_errors(weights, images):
    results = []
    for window in (None, 4, ((4, 2),), ((4, 2),) * 4):
        inferencer = SwinV2Inferencer(
            config_of('classification'),
            weights / 'classification.pth',
            device='cpu',
            window_size=window,
        )
        (found,) = inferencer(images[0])
        results.append(found.sample.pred_score)
    assert not torch.equal(results[0], results[1]) and not torch.equal(results[1], results[2])
    assert torch.equal(results[2], results[3])
    assert parse_windows('16') == 16 and parse_windows('16x8') == ((16, 8),)
    assert parse_windows('16,16x8,8,8') == (16, (16, 8), 8, 8)
    for text in ('', 'x', '16x', '-3', '0', '8,', '8;8', '8x8x8'):
        with pytest.raises(ArgumentTypeError, match='window'):
            parse_windows(text)


def test_names_where_there_are_none(weights):
    cfg = load_config(config_of('detection'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    assert find_classes(cfg, checkpoint_meta={}, model=model).names == tuple(NAMES)
    too_many = {'classes': [f'c{i}' for i in range(80)]}
    assert find_classes(cfg, checkpoint_meta=too_many, model=model).names[3] == 'class 3'
    few = find_classes(cfg, checkpoint_meta={'classes': ['a']}, model=model)
    assert few.names[:2] == ('a', 'class 1') and len(set(few.palette)) == len(few.names) == 10


def test_inputs_that_are_no_images(inferencers):
    predict = inferencers['classification']
    for wrong in (np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))):
        with pytest.raises(DataError, match='array must be'):
            list(predict([wrong]))
    with pytest.raises(DataError, match='does not exist'):
        list(predict('nowhere.jpg'))
    with pytest.raises(UserError, match='batch size'):
        list(predict([], batch_size=0))


def test_import_is_light():
    code = "import sys, swinv2_mm; assert 'torch' not in sys.modules; swinv2_mm.nothing"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert "has no attribute 'nothing'" in done.stderr


class TestTool:
    @pytest.fixture
    def infer(self, tool, weights, tmp_path):
        def run(*arguments, task='classification', out=tmp_path / 'out', options=()):
            chosen = [*OPTIONS.get(task, ()), *options]
            changes = ['--cfg-options', *chosen] if chosen else []
            return tool(
                'infer', '--config', config_of(task), '--out', out, '--device', 'cpu',
                '--weights', weights / f'{task}.pth', *arguments, *changes,
            )  # fmt: skip

        return run

    @pytest.fixture
    def folder(self, digits_root, tmp_path):
        """Twelve small images in two folders."""
        source = sorted((digits_root / 'digits' / 'folders' / 'val').rglob('*.jpg'))
        for number, path in enumerate(source[:12]):
            target = tmp_path / 'in' / ('a', 'b')[number % 2] / f'{number // 2}.jpg'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        return tmp_path / 'in'

    def records(self, out):
        return [json.loads(line) for line in (out / 'predictions.jsonl').open()]

    def test_broken_files_are_named(self, infer, folder, tmp_path):
        content = (folder / 'a' / '0.jpg').read_bytes()
        broken = {
            folder / 'a' / '1.jpg': content[: len(content) // 2],
            folder / 'b' / '0.jpg': b'',
            folder / 'b' / 'page.png': b'<html></html>',
        }
        for path, bad in broken.items():
            path.write_bytes(bad)
        status, errors = infer(folder, '--batch-size', '4')
        assert status == 1
        lines = [line for line in errors.splitlines() if line.startswith('failed: ')]
        assert len(lines) == 3
        assert all(any(str(path) in line for line in lines) for path in broken)
        assert len(self.records(tmp_path / 'out')) == 10
        # Mended, they are done by the next run, and only they.
        for path in broken:
            path.write_bytes(content)
        status, errors = infer(folder, '--resume')
        assert status == 0, errors
        assert len({r['file'] for r in self.records(tmp_path / 'out')}) == 13
        assert len(list((tmp_path / 'out' / 'pictures').rglob('*.jpg'))) == 13

    def test_resumed_is_as_uninterrupted(self, infer, folder, tmp_path):
        assert infer(folder)[0] == 0
        whole = (tmp_path / 'out' / 'predictions.jsonl').read_bytes()
        again = tmp_path / 'again'
        shutil.copytree(tmp_path / 'out', again)
        (again / 'predictions.jsonl').write_bytes(whole[: len(whole) // 2])
        shutil.rmtree(again / 'pictures')
        status, errors = infer(folder, out=again)
        assert status == 1 and '--resume' in errors.splitlines()[-1]
        status, errors = infer(folder, '--resume', '--window-size', '4', out=again)
        assert status == 1 and 'another window_size' in errors.splitlines()[-1]
        assert infer(folder, '--resume', out=again)[0] == 0
        assert (again / 'predictions.jsonl').read_bytes() == whole
        assert 0 < len(list((again / 'pictures').rglob('*.jpg'))) < 12

    def test_list_on_standard_input_and_equal_names(self, infer, folder, tmp_path, monkeypatch):
        listed = [folder / 'a' / '0.jpg', folder / 'b' / '0.jpg', folder / 'nowhere.jpg']
        monkeypatch.setattr('sys.stdin', io.StringIO('\n'.join(map(str, listed)) + '\n\n'))
        status, errors = infer('-')
        assert status == 1 and 'nowhere.jpg' in errors
        pictures = (tmp_path / 'out' / 'pictures').iterdir()
        assert sorted(path.name for path in pictures) == ['0-2.jpg', '0.jpg']

    def test_label_maps(self, infer, inferencers, images, tmp_path):
        assert infer(images[0].parent, task='segmentation')[0] == 0
        for found in inferencers['segmentation'](images):
            file = tmp_path / 'out' / 'label_maps' / f'{Path(found.source).stem}.png'
            with Image.open(file) as label_map:
                assert (np.asarray(label_map) == found.label_map).all()
                colours = np.asarray(label_map.convert('RGB'))
            expected = np.array(found.classes.palette)[found.label_map]
            assert (colours == expected).all()

    def test_tiles(self, infer, inferencers, images, tmp_path):
        """A large and a small image; label maps are those of the Python API."""
        rasterio = pytest.importorskip('rasterio')
        image = np.tile(cv2.imread(str(images[0])), (2, 3, 1))[:200, :310]
        folder = tmp_path / 'in'
        folder.mkdir()
        cv2.imwrite(str(folder / 'large.png'), image)
        cv2.imwrite(str(folder / 'small.png'), image[:100, :120])
        place = rasterio.Affine(2, 0, 0, 0, -2, 0)
        with rasterio.open(
            folder / 'place.tif', 'w', driver='GTiff', width=310, height=200, count=3,
            dtype='uint8', transform=place,
        ) as file:  # fmt: skip
            file.write(image[..., ::-1].transpose(2, 0, 1))
        content = (folder / 'place.tif').read_bytes()
        (folder / 'broken.tif').write_bytes(content[: len(content) // 2])
        tiles = ('--tile', '128', '--overlap', '32', '--batch-size', '2')
        status, errors = infer(folder, *tiles, task='segmentation')
        assert status == 1 and errors.count('failed: ') == 1 and 'broken.tif' in errors
        out = tmp_path / 'out'
        names = sorted(path.name for path in (out / 'label_maps').iterdir())
        assert names == ['large.png', 'place.tif', 'small.png']
        predict = inferencers['segmentation']
        sources = [str(folder / 'large.png'), image[:100, :120]]
        large, small = predict(sources, tile=128, overlap=32, batch_size=3)
        assert isinstance(large, TiledPrediction) and isinstance(small, Prediction)
        with Image.open(out / 'label_maps' / 'large.png') as written:
            assert (np.asarray(written) == large.label_map).mean() > 0.999
        with rasterio.open(out / 'label_maps' / 'place.tif') as written:
            assert written.transform == place
            assert (written.read(1) == large.label_map).mean() > 0.999
        records = {record['name']: record for record in self.records(out)}
        assert (records['large']['width'], records['large']['height']) == (310, 200)
        assert len(list((out / 'pictures').iterdir())) == 3
        with pytest.raises(UserError, match='needs a tile'):
            next(predict(sources, overlap=32))

        pytest.importorskip('trackers')
        with VideoWriter(tmp_path / 'clip.mp4', rate=10) as writer:
            for _ in range(3):
                writer.write(image[:96, :96])
        files = folder / 'large.png', tmp_path / 'clip.mp4'
        options = '--track', '--score-threshold', '0.01'
        status, errors = infer(*files, *tiles, *options, task='detection', out=tmp_path / 'b')
        assert status == 0, errors
        lines = [json.loads(line) for line in (tmp_path / 'b' / 'videos' / 'clip.jsonl').open()]
        assert len(lines) == 3 and all('track_id' in d for d in lines[-1]['detections'])
        results = json.loads((tmp_path / 'b' / 'coco_results.json').read_text())
        assert len(results) > 5
        assert all(result['segmentation']['size'] == [200, 310] for result in results)

    def test_coco_files(self, infer, digits_root, images, tmp_path):
        annotations = digits_root / 'digits' / 'annotations' / 'val.json'
        status, errors = infer(
            images[0].parent, '--no-pictures', '--coco-ids', annotations, task='detection'
        )
        assert status == 0, errors
        from pycocotools.coco import COCO

        data = COCO(str(annotations))
        results = data.loadRes(str(tmp_path / 'out' / 'coco_results.json'))
        assert len(results.anns) == 5 * len(images)
        for record in self.records(tmp_path / 'out'):
            (number,) = [
                k for k, v in data.imgs.items() if Path(v['file_name']).stem == record['name']
            ]
            entries = results.imgToAnns[number]
            names = [data.cats[entry['category_id']]['name'] for entry in entries]
            assert names == [d['class'] for d in record['detections']]
            assert [e['bbox'] for e in entries] == [d['bbox'] for d in record['detections']]
        described = COCO(str(tmp_path / 'out' / 'coco_images.json'))
        assert set(described.imgs) == set(results.imgToAnns)
        assert not (tmp_path / 'out' / 'pictures').exists()
        status, errors = infer(
            ROOT / 'README.md', '--coco-ids', ROOT / 'README.md', task='detection', out='x'
        )
        assert status == 1 and 'annotation file' in errors.splitlines()[-1]

    @pytest.mark.parametrize('ending', ['.mp4', '.avi'])
    def test_video(self, ending, infer, inferencers, images, tmp_path):
        clip = tmp_path / 'clip.mp4'
        frames = [cv2.imread(str(path)) for path in images] * 10
        with VideoWriter(clip, rate=10) as writer:
            for frame in frames:
                writer.write(frame)
        if ending == '.avi':  # has its index at the end, but can be read without it
            clip = clip.with_suffix('.avi')
            writer = cv2.VideoWriter(
                str(clip), cv2.VideoWriter_fourcc(*'MJPG'), 10, frames[0].shape[1::-1]
            )
            for frame in frames:
                writer.write(frame)
            writer.release()
        cut = tmp_path / f'cut{ending}'
        cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
        status, errors = infer(clip, cut, '--batch-size', '8', task='classification')
        assert status == 1
        (line,) = [line for line in errors.splitlines() if line.startswith('failed: ')]
        assert str(cut) in line and 'truncated' in line
        (record,) = self.records(tmp_path / 'out')
        assert record['frames'] == len(frames)
        video = VideoReader(tmp_path / 'out' / 'videos' / 'clip.mp4')
        assert video.rate == 10 and len(list(video)) == len(frames)
        expected = [p.to_dict()['best'][0] for p in inferencers['classification'](
            VideoReader(clip), batch_size=8)]  # fmt: skip
        lines = (tmp_path / 'out' / record['predictions']).read_text().splitlines()
        found = [json.loads(line)['best'][0] for line in lines]
        assert [f['label'] for f in found] == [e['label'] for e in expected]
        assert not list((tmp_path / 'out' / 'videos').glob('.partial*'))

    @pytest.mark.parametrize(
        ('arguments', 'words'),
        [
            (['--batch-size', '0'], '--batch-size'),
            (['--device', 'abacus'], 'abacus'),
            (['-', '-'], 'only once'),
            (['--overlap', '8'], '--tile'),
            (['--tile', '8'], 'tile'),
            (['--tile', '64'], 'whole images'),
            (['--track'], 'classification'),
            (['empty'], 'no images'),
        ],
    )
    def test_bad_arguments(self, arguments, words, infer, folder, tmp_path, monkeypatch):
        (tmp_path / 'empty').mkdir()
        monkeypatch.chdir(tmp_path)
        status, errors = infer('in', *arguments)
        assert status == 1 and words in errors.strip().splitlines()[-1]
        assert 'Traceback' not in errors

    def test_weights_that_would_run_code(self, tool, folder, tmp_path):
        class Payload:
            def __reduce__(self):
                return (open, (str(tmp_path / 'ran'), 'w'))

        torch.save({'state_dict': Payload()}, tmp_path / 'hostile.pth')
        status, errors = tool(
            'infer', folder, '--config', config_of('classification'), '--weights',
            tmp_path / 'hostile.pth', '--out', tmp_path / 'o',
        )  # fmt: skip
        assert status == 1 and 'run code' in errors
        assert not (tmp_path / 'ran').exists() and not (tmp_path / 'o').exists()


def test_files_that_are_passed_over_are_counted(tmp_path):
    for name in ('a.png', 'b.gif', 'c.heic', 'in/d.HEIC', 'in/notes', '.hidden', '.git/e.heic'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert passed_over([str(tmp_path)]) == {'.heic': 2, 'no suffix': 1}
    assert len(list(find_sources([str(tmp_path)]))) == 2


def test_ids_of_an_annotation_file(tmp_path):
    """Names with back-slashes are found; a name with two ids, or a misspelt class, is refused."""
    file = tmp_path / 'ids.json'
    images = [{'id': 7, 'file_name': 'val\\a.png'}, {'id': 9, 'file_name': 'b.png'}]
    categories = [{'id': 3, 'name': 'cat'}, {'id': 1, 'name': 'dog'}]

    def read(classes=('dog', 'cat')):
        file.write_text(json.dumps({'images': images, 'categories': categories}))
        return read_numbers(file, classes=classes)

    numbers = read()
    assert numbers.categories == [1, 3] and numbers.images['val/a.png'] == 7
    assert numbers.of_image('/data/val/a.png') == 7
    with pytest.raises(UserError, match=r'does not know val/c\.png'):
        numbers.of_image('val/c.png')
    with pytest.raises(UserError, match=r"'dgo'.*'dog'"):
        read(classes=('dgo', 'cat'))
    images.append({'id': 8, 'file_name': 'b.png'})
    with pytest.raises(DataError, match='two ids'):
        read()


def test_sources_stay_in_their_folder(tmp_path):
    for name in ('b/2.PNG', 'a.jpg', '.hidden.jpg', 'notes.txt', '.cache/x.jpg', 'c.mp4'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = list(find_sources([str(tmp_path)]))
    assert [s.name for s in found] == ['a', 'c', 'b/2']
    assert [s.is_video for s in found] == [False, True, False]
    assert os.fspath(found[0]) == str(tmp_path / 'a.jpg')


def test_results_are_no_input_and_replace_no_file(tmp_path):
    """The output folder may be the input: what is written is not predicted for by the next run."""
    (tmp_path / 'a.jpg').touch()
    (tmp_path / 'link').symlink_to(tmp_path)
    OutputFolder(tmp_path, run={'weights': 'a'}, resume=False).close()
    for name in ('pictures/a.jpg', 'pictures/in/b.jpg', 'label_maps/a.png', 'in/pictures/c.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    results = result_folders(tmp_path / 'link')
    found = find_sources(['-'], lines=[f'{tmp_path}/in/..\n'], results=results)
    assert [source.name for source in found] == ['a', 'in/pictures/c']
    assert passed_over([str(tmp_path)], results=results) == {'.json': 1, '.jsonl': 1}
    with pytest.raises(UserError, match='another weights'):
        OutputFolder(tmp_path, run={'weights': 'b'}, resume=True)
    (tmp_path / 'predictions.jsonl').unlink()
    with pytest.raises(UserError, match=r'pictures.*overwritten'):
        OutputFolder(tmp_path, run={}, resume=False)


def test_other_content_under_the_same_name_is_told_apart(tmp_path):
    (tmp_path / 'c.py').touch()
    config = Config({'model': {'type': 'A', 'depth': 3}}, filename=str(tmp_path / 'c.py'))
    file, found = tmp_path / 'iter_1.pth', []
    for depth, content in ((3, b'a'), (4, b'b')):
        config.model.depth = depth
        file.write_bytes(content)
        found.append((config_identity(config, classes=['x']), file_identity(file)))
    assert found[0][0] != found[1][0] and found[0][1] != found[1][1]
    assert found[1] == (
        config_identity(config, classes=['x']),
        file_identity(os.path.relpath(file)),
    )
    assert found[1][0] != config_identity(config, classes=['y'])
    assert file_identity('released') == 'released'


@pytest.mark.parametrize('task', CONFIGS)
def test_several_views(task, weights, images):
    pytest.importorskip('swinv2_mm.tta.model')
    options = [*OPTIONS.get(task, ()), "+tta=dict(scales=[1.0],flips=['none'])"]
    inferencer = SwinV2Inferencer(
        config_of(task), weights / f'{task}.pth', device='cpu', use_tta=True, options=options
    )
    plain = SwinV2Inferencer(
        config_of(task), weights / f'{task}.pth', device='cpu', options=OPTIONS.get(task, ())
    )
    for view, expected in zip(inferencer(images[:2]), plain(images[:2]), strict=True):
        torch.testing.assert_close(numbers(view.sample), numbers(expected.sample))
        assert view.image.shape == expected.image.shape
