"""The window-transfer study: its plan, its results, skipping, resuming, errors."""

import csv
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop
from PIL import Image

from projects.window_transfer.plan import Cell, Pair
from projects.window_transfer.score_tables import sampling_error, spread

TOOL = '../projects/window_transfer/tools/compare'
ARCH = 'dict(embed_dim=16,depths=(1,1,1,1),num_heads=(1,2,4,8))'
NUM_TRAIN, NUM_VAL = 6, 4


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Two classes: dark and bright noise."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split, number in (('train', NUM_TRAIN), ('val', NUM_VAL)):
        for name, least in (('bright', 128), ('dark', 0)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(number // 2):
                pixels = rng.integers(least, least + 128, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f'{index}.png')
    return root


def arguments(images, work_dir, **changes):
    flags = {
        'data_root': images, 'work_dir': work_dir, 'pairs': '32/4 48/6', 'arch': ARCH,
        'epochs': 1, 'batch_size': 3, 'num_workers': 0, **changes,
    }  # fmt: skip
    line = []
    for name, value in flags.items():
        line.append(f'--{name.replace("_", "-")}')
        line += [value] if name == 'arch' else str(value).split()
    return line


def scores_of(work_dir):
    with (work_dir / 'results.csv').open() as file:
        return [(row['bias'], row['window'], row['fine_tuned'], row['top1_percent'])
                for row in csv.DictReader(file)]  # fmt: skip


def test_whole_study_and_rerun(tool, refused, images, tmp_path, monkeypatch):
    line = arguments(images, tmp_path)
    status, errors = tool(TOOL, *line)
    assert status == 0, errors

    biases = ('table', 'linear_cpb', 'log_cpb')
    scores = scores_of(tmp_path)
    expected = {(b, w, t) for b in biases for w, t in (('4', '0'), ('6', '0'), ('6', '1'))}
    assert {row[:3] for row in scores} == expected and len(scores) == len(expected)
    assert all(float(row[3]) % (100 / NUM_VAL) == 0 for row in scores)
    content = json.loads((tmp_path / 'results.json').read_text())
    assert content['pairs'] == ['32/4', '48/6'] and content['chance_percent'] == 50
    assert len(content['means']) == len(expected)
    assert all(mean['deviation_percent'] is None for mean in content['means'])
    assert len((tmp_path / 'table.md').read_text().splitlines()) >= 2 + len(biases)
    with Image.open(tmp_path / 'plot.png') as plot:
        assert min(plot.size) > 400
        colours = np.unique(np.asarray(plot.convert('RGB')).reshape(-1, 3), axis=0)
        assert len(colours) > 20

    trained = torch.load(tmp_path / 'table/seed0/train_32px_w4/weights.pth', weights_only=False)
    tuned = torch.load(tmp_path / 'table/seed0/tune_48px_w6/weights.pth', weights_only=False)
    for weights in (trained['state_dict'], tuned['state_dict']):
        # The last stage has one token at 32 px; the reference stays when the window grows.
        sides = weights['backbone.pretrained_window_sizes'].tolist()
        assert sides == [[4, 4], [4, 4], [2, 2], [1, 1]]
    name = 'backbone.layers.0.blocks.0.attn.relative_position_bias_table'
    assert trained['state_dict'][name].shape == tuned['state_dict'][name].shape == (49, 1)
    assert not torch.equal(trained['state_dict'][name], tuned['state_dict'][name])

    def refuse(*_):
        raise AssertionError('a finished cell ran again')

    before = (tmp_path / 'results.csv').read_bytes()
    monkeypatch.setattr('mmengine.runner.Runner.train', refuse)
    monkeypatch.setattr('mmengine.runner.Runner.test', refuse)
    status, errors = tool(TOOL, *line)
    assert status == 0, errors
    assert (tmp_path / 'results.csv').read_bytes() == before

    assert 'begun with --lr 0.001, not 0.01' in refused(TOOL, *line, '--lr', '0.01')


def test_interrupted_study_goes_on(tool, images, tmp_path, monkeypatch):
    changes = {'epochs': 3, 'biases': 'log_cpb', 'fine_tune_epochs': 2}
    status, errors = tool(TOOL, *arguments(images, tmp_path / 'whole', **changes))
    assert status == 0, errors

    run_epoch = EpochBasedTrainLoop.run_epoch
    epochs = []

    def count(self):
        epochs.append((self.runner.max_epochs, self.epoch))
        run_epoch(self)

    def stop_in(kind_epochs, epoch):
        def run(self):
            if (self.runner.max_epochs, self.epoch) == (kind_epochs, epoch):
                raise KeyboardInterrupt
            count(self)

        monkeypatch.setattr(EpochBasedTrainLoop, 'run_epoch', run)

    line = arguments(images, tmp_path / 'broken', **changes)
    stop_in(3, 1)
    assert tool(TOOL, *line)[0] == 130
    assert not (tmp_path / 'broken/results.csv').exists()
    stop_in(2, 1)
    assert tool(TOOL, *line)[0] == 130
    assert len(scores_of(tmp_path / 'broken')) == 2
    monkeypatch.setattr(EpochBasedTrainLoop, 'run_epoch', count)
    status, errors = tool(TOOL, *line)
    assert status == 0, errors
    # No epoch is trained twice, and the weights are those of the uninterrupted study.
    assert epochs == [(3, 0), (3, 1), (3, 2), (2, 0), (2, 1)]
    assert scores_of(tmp_path / 'broken') == scores_of(tmp_path / 'whole')
    for cell in ('train_32px_w4', 'tune_48px_w6'):
        one, other = (
            torch.load(tmp_path / name / 'log_cpb/seed0' / cell / 'weights.pth', weights_only=False)
            for name in ('whole', 'broken')
        )
        one, other = one['state_dict'], other['state_dict']
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_and_options(tool, images, tmp_path):
    line = arguments(
        images, tmp_path, biases='log_cpb', fine_tune_epochs=0, seeds='0 1', pairs='32/4 40/5',
        cfg_options='optim_wrapper.optimizer.weight_decay=0.25',
    )  # fmt: skip
    status, errors = tool(TOOL, *line, '--no-flip', '--min-crop', '1', '--test-crop', '1')
    assert status == 0, errors
    assert len(scores_of(tmp_path)) == 4
    assert ' ± ' in (tmp_path / 'table.md').read_text()
    weights = []
    for seed in (0, 1):
        folder = tmp_path / f'log_cpb/seed{seed}/train_32px_w4'
        cfg = Config.fromfile(next(folder.glob('*.py')))
        assert cfg.randomness.seed == seed and cfg.optim_wrapper.optimizer.weight_decay == 0.25
        steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
        assert steps['RandomFlip'].prob == 0
        assert tuple(steps['RandomResizedCrop'].crop_ratio_range) == (1, 1)
        state = torch.load(folder / 'weights.pth', weights_only=False)['state_dict']
        weights.append(state['head.fc.weight'])
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'data_root': '/nowhere'}, ['/nowhere', 'train']),
        ({'pairs': '128x8 192/12'}, ['128/8', "'128x8'"]),
        ({'pairs': '32/0 48/6'}, ["'32/0'"]),
        ({'pairs': '32/9 48/6'}, ['32/9', '8 tokens']),
        ({'pairs': '32/4'}, ['--pairs', 'at least one']),
        ({'pairs': '32/4 32/4'}, ['--pairs', 'twice']),
        ({'epochs': 0}, ['--epochs']),
        ({'lr': -1}, ['--lr']),
        ({'min_crop': 0}, ['--min-crop']),
        ({'batch_size': 7}, ['--batch-size', '7']),
        ({'arch': 'tinny'}, ['--arch', "did you mean 'tiny'"]),
        ({'cfg_options': 'model.backbone.window_size=4'}, ['window_size', '--pairs']),
        ({'cfg_options': 'model.backbone.window=4'}, ['did you mean', 'window_size']),
    ],
    ids=lambda value: ' '.join(map(str, value.values())) if isinstance(value, dict) else '',
)
def test_bad_command_line(changes, words, refused, images, tmp_path):
    line = refused(TOOL, *arguments(images, tmp_path, **changes))
    assert all(word in line for word in words), line


def test_bad_data(refused, images, tmp_path):
    root = tmp_path / 'data'
    for name in ('train/a', 'train/b', 'val/a', 'val/c'):
        (root / name).mkdir(parents=True)
    assert 'a holds no image' in refused(TOOL, *arguments(root, tmp_path / 'run'))
    for name in ('train/a', 'train/b', 'val/a', 'val/c'):
        (root / name / '0.png').write_bytes(b'no image')
    assert 'b is a class of one split only' in refused(TOOL, *arguments(root, tmp_path / 'run'))
    (root / 'val/c').rename(root / 'val/b')
    assert 'cannot be read' in refused(TOOL, *arguments(root, tmp_path / 'run', batch_size=2))


@pytest.mark.parametrize(
    ('pair', 'windows'),
    [
        ('256/8', (8, 8, 8, 8)),
        ('256/16', (16, 16, 16, 8)),  # as released
        ('192/12', (12, 12, 12, 6)),  # as released
        ('128/8', (8, 8, 8, 4)),
        ('36/9', (9, 5, 3, 2)),
    ],
)
def test_windows_of_the_stages(pair, windows):
    assert Pair.parse(pair).stage_windows(4) == windows


def test_statistics():
    assert spread([1.0]) is None and spread([1.0, 3.0]) == pytest.approx(2**0.5)
    assert sampling_error(50, num_images=100) == pytest.approx(5)


def test_cells_have_folders_of_their_own():
    pairs = Pair(128, 8), Pair(128, 16)
    cells = [Cell(k, 'table', s, p) for k in ('test', 'tune') for s in (0, 1) for p in pairs]
    assert len({cell.folder for cell in cells}) == len(cells)


def test_images_are_a_folder_or_digits(tool, images, tmp_path):
    for line in ((), ('--data-root', images, '--digits', 10), ('--digits', 9)):
        status, errors = tool(TOOL, '--work-dir', tmp_path, *line)
        assert status == 2 and '--digits' in errors, errors
