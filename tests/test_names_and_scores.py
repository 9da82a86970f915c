"""Scores of a detector that finds nothing, and names of files that never collide."""

import json
import unicodedata

import pytest
from PIL import Image
from test_bad_settings import NARROW
from test_tools import CLASSIFIER, DETECTOR, SHORT, TINY

import swinv2_mm.cli
from swinv2_mm.config.file import load_config
from swinv2_mm.output_names import OutputNames

DETECTOR_OPTIONS = [NARROW, 'model.neck.in_channels=[16,32,64,128]']


@pytest.fixture(scope='module')
def trained(data_root, tmp_path_factory):
    """The work dir of a detector that finds nothing."""
    folder = tmp_path_factory.mktemp('run')
    options = [*SHORT, *DETECTOR_OPTIONS, 'train_cfg.max_iters=1', 'train_dataloader.batch_size=1']
    options += ['default_hooks.checkpoint.interval=1', 'model.test_cfg.rcnn.score_thr=0.9999']
    options += ['train_cfg.val_interval=1', 'default_hooks.checkpoint.save_best=coco/segm_mAP']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWINV2_DATA', str(data_root))
        runner = swinv2_mm.cli.train(DETECTOR, work_dir=folder, options=options)
    assert runner.message_hub.get_info('best_score') == 0
    return folder


@pytest.fixture
def run(trained, use_data):
    return trained


def test_detector_that_finds_nothing_has_ap_0(run, tmp_path):
    out = tmp_path / 'scores.json'
    config = run / DETECTOR.name
    metrics = swinv2_mm.cli.test(config, run / 'iter_1.pth', out=out, work_dir=tmp_path / 'test')
    written = json.loads(out.read_text())['metrics']
    for name in ('coco/bbox_mAP', 'coco/segm_mAP', 'coco/segm_mAP_50'):
        assert metrics[name] == written[name] == 0


def test_names_never_meet():
    names = OutputNames()
    wanted = [
        'a', 'A', 'a.jpg/b', 'a.jpg', 'x/../../a', '..', '/', 'con', 'NUL.x', 'end. ', 'a:b', 'a?b',
        'n' * 251, 'n' * 250 + 'm',
        '\u00e9', 'e\u0301', '\u00e9' * 200, 'Stra\u00dfe', 'STRASSE', 'a-2',
    ]  # fmt: skip
    found = [names.reserve(name) for name in wanted]
    keys = {unicodedata.normalize('NFC', name).casefold() for name in found}
    assert len(keys) == len(wanted) and found[0] == 'a'
    for name in found:
        parts = name.split('/')
        assert '..' not in parts and '' not in parts
        assert all(len(part.encode()) <= 220 for part in parts)
        assert not any(part.endswith('.jpg') for part in parts[:-1])
        assert not parts[-1].endswith((' ', '.'))


def test_every_file_has_results_of_its_own(run, tmp_path):
    files = ['a.png', 'a.jpg/b.png', f'{"n" * 251}.png', f'{"n" * 251}.jpg', 'A.png', '1/x.jpg',
             '2/x.jpg']  # fmt: skip
    for number, name in enumerate(files):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (48 + number, 48)).save(tmp_path / 'in' / name)
    out = tmp_path / 'out'
    summary = swinv2_mm.cli.infer(
        run / DETECTOR.name, run / 'iter_1.pth', tmp_path / 'in', out=out, device='cpu'
    )
    assert (summary.num_done, summary.num_failed) == (len(files), 0)
    records = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    for record in records:
        with Image.open(out / 'pictures' / f'{record["name"]}.jpg') as picture:
            # Small ones are enlarged for the drawing.
            assert round(48 * picture.width / picture.height) == record['width']
    assert sorted(record['width'] for record in records) == [48 + n for n in range(len(files))]


def test_drawings_of_several_folders_do_not_meet(use_data, tmp_path):
    """Two classes with images of one name each, drawn to a file each."""
    for name, colour in (('one', 0), ('two', 200)):
        folder = tmp_path / 'data' / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new('RGB', (64, 64), (colour, 0, 0)).save(folder / f'{number}.png')
    options = [*SHORT, *TINY, 'train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1']
    options += ['+val_dataloader=None', '+val_cfg=None', '+val_evaluator=None']
    swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path / 'run', options=options)
    cfg = load_config(str(CLASSIFIER), TINY)
    pipeline = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset = dict(
        type='CustomDataset', data_root=str(tmp_path), data_prefix='data', pipeline=pipeline
    )
    swinv2_mm.cli.test(
        cfg, tmp_path / 'run' / 'iter_1.pth', work_dir=tmp_path / 'test',
        show_dir=tmp_path / 'shown',
    )  # fmt: skip
    found = {path.relative_to(tmp_path / 'shown') for path in tmp_path.glob('shown/*/*.png')}
    assert set(map(str, found)) == {'one/0.png', 'one/1.png', 'two/0.png', 'two/1.png'}
    brightness = {}
    for path in found:
        with Image.open(tmp_path / 'shown' / path) as drawn:
            corner = drawn.convert('RGB').getpixel((drawn.width - 3, drawn.height - 3))
            brightness[path.parent.name] = max(corner)
    assert brightness['two'] - brightness['one'] > 100
