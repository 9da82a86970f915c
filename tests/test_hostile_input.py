"""Bad data ends in one line or is left out; nothing hangs, crashes, runs or leaves the work dir."""

import json
import logging
import os
import shutil
import signal
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import broken_data
import cv2
import numpy as np
import pytest
import torch
from broken_data import CASES, ERROR, READ, REFUSED
from conftest import ROOT
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image
from shrinking import as_text, shrink

import swinv2_mm.models  # noqa: F401  the stand-in for mmcv's compiled ops
from swinv2_mm.config.file import load_config
from swinv2_mm.data_check.bad_data import policy_of
from swinv2_mm.data_check.guard import guard_data
from swinv2_mm.data_check.guarded import HINT
from swinv2_mm.data_check.loading import LoadCheckedImage
from swinv2_mm.data_check.opening import look_at_image
from swinv2_mm.data_check.survey import survey
from swinv2_mm.datasets.image_files import (
    LIMITS_VARIABLE,
    ImageLimits,
    image_limits,
    read_image,
    read_label_map,
)
from swinv2_mm.engine.checkpoint_hook import SafeCheckpointHook
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference.preparation import build_preparation, prepare_config
from swinv2_mm.inference.video import VideoReader

LEAVES = {
    'detection': 'cascade-mask-rcnn_swinv2-nano-w8_digits.py',
    'segmentation': 'upernet_swinv2-nano-w8_digits.py',
    'classification': 'swinv2-nano-w8_digits.py',
}
# Which libraries read what a group of cases breaks.
TASKS = {
    'image': tuple(LEAVES),
    'listed image': ('detection',),
    'name': ('detection',),
    'COCO file': ('detection',),
    'label map': ('segmentation',),
    'class folders': ('classification',),
    'list of files': ('classification',),
}
NUM_TRAIN_IMAGES = {'detection': 2, 'segmentation': 2, 'classification': 20}
LONGEST_S = 60
PLACEHOLDER = '/the/data/root'
each_case = pytest.mark.parametrize('case', CASES, ids=str)


@contextmanager
def time_limit(seconds):
    """Fail instead of waiting for ever."""

    def stop(*_):
        raise TimeoutError(f'hangs for {seconds} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope='module')
def few(digits_root, tmp_path_factory):
    """The digits with two images each for training and validation, and one a class."""
    source, root = digits_root / 'digits', tmp_path_factory.mktemp('few') / 'digits'
    for split in broken_data.SPLITS:
        coco = json.loads((source / 'annotations' / f'{split}.json').read_text())
        coco['images'] = coco['images'][:2]
        ids = {image['id'] for image in coco['images']}
        coco['annotations'] = [a for a in coco['annotations'] if a['image_id'] in ids]
        (root / 'annotations').mkdir(parents=True, exist_ok=True)
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco))
        for folder, ending in (('images', 'jpg'), ('label_maps', 'png')):
            (root / folder / split).mkdir(parents=True)
            for number in (1, 2):
                name = f'{folder}/{split}/{number:05}.{ending}'
                shutil.copy(source / name, root / name)
        for path in (source / 'folders' / split).iterdir():
            target = root / 'folders' / split / path.name
            target.mkdir(parents=True)
            for image in sorted(path.iterdir())[:2]:
                shutil.copy(image, target)
    return root


@pytest.fixture
def root(few, tmp_path, monkeypatch):
    """A copy of them that a test may break, found through SWINV2_DATA."""
    monkeypatch.setenv('SWINV2_DATA', str(tmp_path / 'data'))
    return shutil.copytree(few, tmp_path / 'data' / 'digits')


@cache
def config_tree(task):
    """What is in a config, read once: that takes a third of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWINV2_DATA', PLACEHOLDER)
        return load_config(str(ROOT / 'configs' / task / LEAVES[task])).to_dict()


def moved(node):
    """A copy of a config whose data root is that of the environment."""
    if isinstance(node, str):
        return node.replace(PLACEHOLDER, os.environ['SWINV2_DATA'])
    if isinstance(node, dict):
        return {key: moved(value) for key, value in node.items()}
    return type(node)(map(moved, node)) if isinstance(node, (list, tuple)) else node


def config_of(task, case=None, policy='raise'):
    cfg = Config(moved(config_tree(task)))
    cfg.bad_data = policy
    if case is not None and case.group == 'list of files':
        cfg.merge_from_dict(dict(list_options(cfg)))
    return cfg


def list_options(cfg):
    """Have class folders read by a list."""
    for split, loader in (('train', 'train'), ('val', 'val'), ('val', 'test')):
        dataset = cfg[f'{loader}_dataloader'].dataset
        yield f'{loader}_dataloader.dataset.ann_file', f'../{split}.txt'
        assert dataset.data_prefix == split


def guarded(cfg, part, work_dir):
    """The data set of a loader as tools/train.py and tools/test.py guard it."""
    settings = dict(dataset=cfg[f'{part}_dataloader'].dataset)
    runner = SimpleNamespace(
        cfg=cfg, work_dir=str(work_dir), logger=logging.getLogger('guard'), hooks=[],
        _val_evaluator=cfg.val_evaluator, _test_evaluator=cfg.test_evaluator,
        **{f'_{part}_dataloader': settings},
    )  # fmt: skip
    runner.register_hook = runner.hooks.append
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        guard_data(runner, [part])
    return settings['dataset'], runner


def outcome_of(task, case, part, work_dir):
    """What becomes of a case in a part of a run, read without a model; and the messages."""
    messages = []

    def read(policy):
        cfg = config_of(task, case, policy)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset, runner = guarded(cfg, part, work_dir / policy)
            assert all(dataset[i] is not None for i in range(len(dataset)))
            runner.hooks[0].after_test(runner)
        return dataset

    try:
        read('raise')
    except DataError as error:
        messages.append(str(error))
    try:
        read('skip')
    except DataError as error:
        assert messages
        return ERROR, [*messages, str(error)]
    lines = (work_dir / 'skip' / 'skipped.jsonl').exists()
    assert lines == bool(messages), 'what is left out is listed, and nothing else'
    return (REFUSED if messages else READ), messages


def check_case(case, root, work_dir, tasks):
    case.plant(root)
    for task in tasks:
        for part in ('train', 'test'):
            with time_limit(LONGEST_S):
                outcome, messages = outcome_of(task, case, part, work_dir / f'{task}-{part}')
            expected = case.outcome
            if 'annotated as stored' in case.name and task != 'detection':
                expected = READ
            assert outcome == expected, (task, part, messages)
            for message in messages:
                assert case.words in message and '\n' not in message and message.isprintable()
            if outcome == REFUSED:
                assert HINT in messages[0]
    assert not list(root.rglob('ran'))


@pytest.mark.parametrize('case', [c for c in CASES if '100,000' not in c.name], ids=str)
def test_case(case, root, tmp_path):
    """In one library; which one changes from case to case."""
    tasks = TASKS[case.group]
    check_case(case, root, tmp_path, [tasks[CASES.index(case) % len(tasks)]])


@pytest.mark.slow
@each_case
def test_case_in_all_libraries(case, root, tmp_path):
    check_case(case, root, tmp_path, TASKS[case.group])


@pytest.mark.parametrize('case', [c for c in CASES if '100,000' not in c.name], ids=str)
def test_check_reports_the_case(case, root):
    """And nothing else that a training refuses: the check and the guard read data alike."""
    case.plant(root)
    tasks = TASKS[case.group]
    task = tasks[CASES.index(case) % len(tasks)]
    with time_limit(LONGEST_S):
        found = survey(config_of(task, case), config='the config', progress=False).findings
    kind = case.kind
    if kind == 'image-rotated-labels' and task != 'detection':
        kind = 'image-rotated'
    assert not kind or kind in {finding.kind for finding in found}
    errors = {finding.kind for finding in found if finding.severity == 'error'}
    assert errors <= {kind, *case.also}
    if case.outcome != READ:
        assert kind in errors or task != 'detection'


@pytest.mark.parametrize('case', [c for c in CASES if c.infer], ids=str)
def test_case_in_inference(case, tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(tmp_path))
    file = tmp_path / 'given.jpg'
    case.plant(tmp_path, file)
    cfg = config_of('segmentation')
    prepare_config(cfg)
    prepare = build_preparation(cfg)
    with time_limit(LONGEST_S):
        if case.infer == READ:
            assert prepare(str(file), 0).image.dtype == np.uint8
        else:
            with pytest.raises(DataError) as caught:
                prepare(str(file), 0)
            assert case.words in str(caught.value) and str(file) in str(caught.value)


# --- the tools themselves -------------------------------------------------------------------------


@pytest.fixture(scope='module')
def small():
    """Text of a narrow config, and weights, per task."""

    @cache
    def make(task, with_list):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('SWINV2_DATA', PLACEHOLDER)
            case = broken_data.Case('list of files' if with_list else '', '', None, READ)
            tree = shrink(config_of(task, case))
        # One step that draws every image.
        tree['train_dataloader']['batch_size'] = NUM_TRAIN_IMAGES[task]
        with DefaultScope.overwrite_default_scope(tree['default_scope']):
            model = MODELS.build(Config(tree).model)
        model.init_weights()
        return as_text(tree), {'state_dict': model.state_dict(), 'meta': {}}

    return make


def is_refused(outcome, policy):
    return outcome == ERROR or (outcome == REFUSED and policy == 'raise')


def names_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob('*')}


@pytest.mark.slow
@each_case
def test_case_in_the_tools(case, root, small, tool, tmp_path):
    """Training, testing and predicting: exit status, messages, and where files appear."""
    case.plant(root)
    task = TASKS[case.group][-1]
    text, weights = small(task, case.group == 'list of files')
    config, weights_file, out = tmp_path / 'config.py', tmp_path / 'weights.pth', tmp_path / 'out'
    config.write_text(text.replace(PLACEHOLDER, str(tmp_path / 'data')))
    torch.save(weights, weights_file)
    before = names_below(tmp_path)
    expected = case.outcome if 'annotated as stored' not in case.name else READ
    for policy in ('raise', 'skip'):
        runs = {
            'train': ['train', config],
            'test': ['test', config, weights_file, '--show-dir', out / 'shown', '--out',
                     out / 'p.npz'],
        }  # fmt: skip
        for part, arguments in runs.items():
            with time_limit(LONGEST_S):
                status, errors = tool(
                    *arguments, '--work-dir', out / policy / part, '--cfg-options',
                    f'bad_data={policy}',
                )  # fmt: skip
            assert 'Traceback' not in errors
            assert status == is_refused(expected, policy), (part, policy, errors[-2000:])
            if status:
                line = errors.strip().splitlines()[-1]
                assert line.startswith('error: ') and case.words in line
        if case.infer:
            file = tmp_path / 'given.jpg'
            case.plant(tmp_path, file)
            with time_limit(LONGEST_S):
                status, errors = tool(
                    'infer', file, first_good(root), '--config', config, '--weights', weights_file,
                    '--out', out / policy / 'infer', '--device', 'cpu', '--cfg-options',
                    f'bad_data={policy}',
                )  # fmt: skip
            assert 'Traceback' not in errors
            assert status == is_refused(case.infer, policy), errors[-2000:]
            file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
    new = {name for name in names_below(tmp_path) - before if not name.startswith('out')}
    assert not new


def first_good(root):
    return root / 'images' / 'train' / '00002.jpg'


def test_predictions_stay_in_their_folder(small, root, tool, tmp_path):
    """Whatever files are called."""
    text, weights = small('classification', False)
    config, weights_file = tmp_path / 'config.py', tmp_path / 'weights.pth'
    config.write_text(text.replace(PLACEHOLDER, str(tmp_path / 'data')))
    torch.save(weights, weights_file)
    given = tmp_path / 'given' / 'below'
    given.mkdir(parents=True)
    files = []
    for name in (
        'a b.jpg',
        'größe.jpg',
        'two\nlines.jpg',
        '\x1b[2J.jpg',
        '...jpg',
        '..jpg',
        '-x.jpg',
    ):
        shutil.copy(first_good(root), given / name)
        files.append(given / name)
    files += [given / '..' / 'below' / 'a b.jpg', given / 'a b.jpg' / '..']
    before = names_below(tmp_path)
    status, errors = tool(
        'infer', *files, '--config', config, '--weights', weights_file, '--device', 'cpu',
        '--out', tmp_path / 'out', '--cfg-options', 'bad_data=skip',
    )  # fmt: skip
    assert status == 0, errors
    assert all(name.startswith('out') for name in names_below(tmp_path) - before)
    pictures = list((tmp_path / 'out' / 'pictures').rglob('*.jpg'))
    assert len(pictures) == len(files) - 1
    (line,) = (tmp_path / 'out' / 'skipped.jsonl').read_text().splitlines()
    assert json.loads(line)['file'] == str(files[-1])


def table():
    """The table of docs/input.md."""
    lines = ['| input | train | test | infer | |', '|---|---|---|---|---|']
    for case in CASES:
        remark = case.remark or (f'"{case.words}"' if case.words else '')
        name = f'{case.group}: {case.name}'
        lines.append(
            f'| {name} | {case.outcome} | {case.outcome} | {case.infer or "-"} | {remark} |'
        )
    return '\n'.join(lines)


def test_the_document_holds_the_table():
    print(table())
    assert table() in (ROOT / 'docs' / 'input.md').read_text()


def test_unusual_images_are_read_as_the_field_does(tmp_path):
    """As OpenCV does, or as Pillow converts."""
    image, path = broken_data.picture(), tmp_path / 'image'

    def read(content):
        path.write_bytes(content)
        return read_image(str(path)), cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR
        )

    deep = np.random.default_rng(0).integers(0, 2**16, (9, 7, 3)).astype(np.uint16)
    for pixels in (deep, deep[:, :, 0]):
        found, expected = read(cv2.imencode('.png', pixels)[1].tobytes())
        assert (found == expected).all()
    for orientation in range(1, 9):
        found, expected = read(broken_data.with_orientation(orientation))
        assert found.shape == expected.shape
        # The two use JPEG decoders of their own.
        assert np.abs(found.astype(int) - expected).mean() < 2, orientation
    for mode in ('L', 'P', 'RGBA', '1', 'CMYK'):
        converted = image.convert(mode)
        found, _ = read(broken_data.encoded(converted, 'TIFF'))
        assert (found[:, :, ::-1] == np.asarray(converted.convert('RGB'))).all(), mode
    frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue')]
    found, _ = read(broken_data.encoded(frames[0], 'PNG', save_all=True, append_images=frames[1:]))
    assert (found == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ('size', 'limits', 'key'),
    [
        ((70000, 1), None, 'side'),
        ((60000, 1), None, 'long'),
        ((1, 300), None, 'long'),
        ((1, 7000), ImageLimits(aspect_ratio=6999), 'long'),
        ((3000, 3000), ImageLimits(num_pixels=8_999_999), 'pixels in all'),
        ((10, 10), ImageLimits(num_bytes=30), 'bytes'),
    ],
)
def test_limits_are_checked_before_decoding(size, limits, key, tmp_path, monkeypatch):
    path = tmp_path / 'image.png'
    Image.new('1', size).save(path)
    read_image(str(path), limits=ImageLimits(side_px=None, aspect_ratio=None))
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: pytest.fail('was decoded'))
    with pytest.raises(DataError, match=key):
        read_image(str(path), limits=limits)


def test_every_reader_has_the_limits(tmp_path, monkeypatch):
    """Training, dataset check, label maps, arrays and videos; all are raised in one place."""
    path, video = str(tmp_path / 'image.png'), tmp_path / 'video.mp4'
    Image.new('L', (900, 3)).save(path)
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*'mp4v'), 5, (1200, 4))
    writer.write(np.zeros((4, 1200, 3), np.uint8))
    writer.release()
    cfg = config_of('classification')
    prepare_config(cfg)
    edge = dict(type='ResizeEdge', scale=8, edge='short')
    cfg.test_dataloader.dataset.pipeline.insert(1, edge)
    readers = (
        lambda: LoadCheckedImage().transform({'img_path': path}),
        lambda: look_at_image(path),
        lambda: read_label_map(path),
        lambda: build_preparation(cfg)(path, 0),
        lambda: build_preparation(cfg)(np.zeros((3, 900, 3), np.uint8), 0),
        lambda: VideoReader(video),
    )
    for read in readers:
        with pytest.raises(DataError, match=r'300 times|200 times'):
            read()
    monkeypatch.setenv(LIMITS_VARIABLE, 'aspect_ratio=301,side_px=none')
    assert image_limits() == ImageLimits(aspect_ratio=301, side_px=None)
    for read in readers:
        read()
    for wrong in ('side=3', 'side_px', 'side_px=many'):
        monkeypatch.setenv(LIMITS_VARIABLE, wrong)
        with pytest.raises(UserError, match=LIMITS_VARIABLE):
            read_image(path)


def test_more_pixels_than_pillow_takes(tmp_path, monkeypatch):
    path = str(tmp_path / 'image.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 50)
    Image.new('L', (20, 10)).save(path)
    with pytest.raises(DataError, match='num_pixels'):
        read_image(path)
    monkeypatch.setenv(LIMITS_VARIABLE, 'num_pixels=200')
    assert read_image(path).shape == (10, 20, 3)


def test_data_below_the_current_folder(root, tmp_path, monkeypatch):
    """As it is where SWINV2_DATA is not set: ./data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('SWINV2_DATA', 'data')
    for policy, left_out in (('raise', 0), ('skip', 1)):
        if left_out:
            path = root / 'annotations' / 'train.json'
            coco = json.loads(path.read_text())
            coco['annotations'][0]['bbox'] = None
            path.write_text(json.dumps(coco))
        dataset, _ = guarded(config_of('detection', None, policy), 'train', Path('work'))
        assert len(dataset) == 2
        lines = Path('work/skipped.jsonl').read_text().splitlines() if left_out else []
        assert len(lines) == left_out


def test_back_slashes_in_file_names(root, tmp_path):
    """As programs for Windows write COCO files."""
    path = root / 'annotations' / 'train.json'
    coco = json.loads(path.read_text())
    names = [image['file_name'] for image in coco['images']]
    folder = root / 'images' / 'train'
    for image, name in zip(coco['images'], names, strict=True):
        (folder / 'below' / 'deep').mkdir(parents=True, exist_ok=True)
        (folder / name).rename(folder / 'below' / 'deep' / name)
        image['file_name'] = f'below\\deep\\{name}'
    # A name that is so on the disk stays.
    odd = folder / 'a\\b.jpg'
    (folder / 'below' / 'deep' / names[0]).rename(odd)
    coco['images'][0]['file_name'] = odd.name
    path.write_text(json.dumps(coco))
    dataset, _ = guarded(config_of('detection'), 'train', tmp_path / 'work')
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = dataset if hasattr(dataset, 'get_data_info') else DATASETS.build(dataset)
    paths = {dataset.get_data_info(index)['img_path'] for index in range(len(dataset))}
    assert len(paths) == len(dataset) >= 2 and all(map(os.path.isfile, paths))
    assert str(odd) in paths


def test_policies():
    assert policy_of({}, 'train') == 'raise'
    assert policy_of({'bad_data': {'train': 'skip'}}, 'train') == 'skip'
    assert policy_of({'bad_data': {'train': 'skip'}}, 'test') == 'raise'
    for wrong in ('ignore', None, {'train': 'x'}, {'validation': 'skip'}):
        with pytest.raises(UserError, match='bad_data'):
            policy_of({'bad_data': wrong}, 'train')


def test_a_checkpoint_names_no_file_to_delete(tmp_path):
    """MMEngine deletes the best checkpoint so far when there is a better one."""
    for name in ('work/best.pth', 'elsewhere/precious.pth'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    elsewhere = tmp_path / 'elsewhere'
    for best, kept in (
        (tmp_path / 'work' / 'best.pth', True), (elsewhere / 'precious.pth', False),
        (elsewhere, False), (tmp_path / 'work' / '..' / 'elsewhere' / 'precious.pth', False),
        (tmp_path / 'work', False), (7, False),
    ):  # fmt: skip
        hub = MessageHub.get_instance(f'hub {best}')
        hub.update_info('best_ckpt', best if best == 7 else str(best))
        hub.update_info('keep_ckpt_ids', ['../../elsewhere/precious'])
        runner = SimpleNamespace(
            work_dir=str(tmp_path / 'work'),
            message_hub=hub,
            _resume=False,
            logger=logging.getLogger('hook'),
        )
        hook = SafeCheckpointHook(save_best='score', rule='greater', max_keep_ckpts=1)
        hook.before_train(runner)
        assert hook.best_ckpt_path == (str(best) if kept else None)
        assert not hook.keep_ckpt_ids
