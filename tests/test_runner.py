"""Where a model's weights may come from, and what it must not take."""

import re
from collections import Counter

import numpy as np
import oracle
import pytest
import torch
from conftest import only_line
from test_checkpoint_heads import classifier
from test_tools import CLASSIFIER

from swinv2_mm.checkpoint import reading, save_pretrained, weight_files
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.trained_model import load_trained_model

ARCH = {'embed_dim': 16, 'depths': (1, 1, 1, 1), 'num_heads': (1, 2, 4, 8)}
SMALL = [
    f'model.backbone.arch={ARCH!r}'.replace(' ', ''),
    'model.head.in_channels=128',
    'train_cfg.max_iters=1',
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=1',
    'default_hooks.checkpoint.interval=1',
    'optim_wrapper.optimizer.lr=0.0',
    '+test_dataloader.dataset.indices=4',
    '+val_dataloader=None',
    '+val_cfg=None',
    '+val_evaluator=None',
]


@pytest.fixture
def train(tool, use_data, tmp_path):
    """Train for a step at rate 0, and return the weights, which are those that were loaded."""

    def run(*options, name='run'):
        folder = tmp_path / name
        status, errors = tool(
            'train', CLASSIFIER, '--work-dir', folder, '--cfg-options', *SMALL, *options
        )
        if status:
            return only_line(errors)
        run.log = next(folder.glob('*/*.log')).read_text()
        return torch.load(folder / 'iter_1.pth', weights_only=False)['state_dict']

    return run


def foreign(path, *, num_classes=10, layout='timm', seed=0):
    model = classifier(num_classes, arch=ARCH, window_size=8)
    oracle.randomise(model, seed=seed)
    save_pretrained(model, path, layout=layout)
    return model


def test_a_foreign_classifier_starts_a_training(train, tmp_path):
    model = foreign(tmp_path / 'a.safetensors')
    weights = train(f'load_from={tmp_path}/a.safetensors')
    assert torch.equal(weights['head.fc.weight'], model.head.weight)
    name = 'layers.2.blocks.0.mlp.fc1.weight'
    assert torch.equal(weights[f'backbone.{name}'], model.backbone.get_parameter(name))
    assert 'timm' in train.log and '8, 8, 8, 8' in train.log
    assert 'keep their initial values' not in train.log


def test_a_foreign_classifier_is_its_own_average(tool, use_data, tmp_path):
    """EMAHook copies the model before weights are loaded, and tests its copy."""
    path = tmp_path / 'a.safetensors'
    foreign(path)
    found = []
    for name, options in (
        ('plain', []),
        ('average', ["+custom_hooks=[dict(type='EMAHook')]"]),
    ):
        out = tmp_path / f'{name}.npz'
        arguments = (path, '--work-dir', tmp_path / name, '--out', out)
        status, errors = tool('test', CLASSIFIER, *arguments, '--cfg-options', *SMALL, *options)
        assert status == 0, errors
        found.append(np.load(out))
    assert found[0].files
    for key in found[0].files:
        assert np.array_equal(found[0][key], found[1][key]), key


def test_a_larger_head_needs_a_map(train, tmp_path):
    model = foreign(tmp_path / 'a.pth', num_classes=30, layout='official')
    weights = train(f'load_from={tmp_path}/a.pth')
    assert weights['head.fc.weight'].abs().max() < 0.2 < model.head.weight.abs().max()
    assert '30 classes' in train.log
    assert '2 tensors keep their initial values' in train.log
    (tmp_path / 'map.txt').write_text('\n'.join(str(3 * i) for i in range(10)))
    weights = train(
        f'load_from={tmp_path}/a.pth', f'+head_class_map={tmp_path}/map.txt', name='mapped'
    )
    assert torch.equal(weights['head.fc.weight'], model.head.weight[::3])
    assert 'absent.txt' in train(
        f'load_from={tmp_path}/a.pth', '+head_class_map=absent.txt', name='absent'
    )


def test_parts_of_our_own_may_stay_fresh(train, tmp_path):
    first = train()
    start = f'load_from={tmp_path}/run/iter_1.pth'
    line = train(start, 'model.head.num_classes=12', '+randomness.seed=1', name='refused')
    assert 'does not fit' in line and 'fresh_parameters' in line
    weights = train(start, '+fresh_parameters=["head"]', '+randomness.seed=1', name='fresh')
    assert not torch.equal(weights['head.fc.weight'], first['head.fc.weight'])
    for name, value in weights.items():
        assert name.startswith('head.') or torch.equal(value, first[name]), name
    assert re.search(r'2 tensors keep their initial values: .*head\.fc\.bias', train.log)
    pattern = '+fresh_parameters=["backbone.layers.*.blocks"]'
    weights = train(start, pattern, '+randomness.seed=1', name='pattern')
    name = 'backbone.layers.3.blocks.0.mlp.fc2.weight'
    assert not torch.equal(weights[name], first[name])
    # A star is one part of a name, not several.
    for unknown in ('haed', 'backbone.*.blocks'):
        line = train(start, f'+fresh_parameters=["{unknown}"]', name='unknown')
        assert 'fresh_parameters' in line and unknown in line


def test_scaled_learning_rate_counts_accumulated_images(train, tmp_path):
    train('+auto_scale_lr.enable=True', 'accumulate=4', 'optim_wrapper.optimizer.lr=1.0')
    optimizer = torch.load(tmp_path / 'run' / 'iter_1.pth', weights_only=False)['optimizer']
    # Four images in each of four iterations, for a batch of 64.
    rates = {group['initial_lr'] for group in optimizer['param_groups']}
    assert rates == {16 / 64}


@pytest.fixture
def passes(monkeypatch):
    """How often each step of reading a file is taken."""
    counts = Counter()

    def counted(owner, name):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted(torch, 'load')
    counted(weight_files, 'check_pickle_file')
    counted(reading, 'local_path')
    return counts


@pytest.mark.parametrize(
    ('door', 'with_map'),
    [('runner', False), ('runner', True), ('prediction', False), ('prediction', True),
     ('init_cfg', False)],
)  # fmt: skip
def test_a_file_is_opened_once(door, with_map, tool, use_data, tmp_path, passes):
    path = tmp_path / 'a.pth'
    foreign(path, num_classes=30 if with_map else 10, layout='official')
    options = [*SMALL, f'load_from={path}']
    if with_map:
        (tmp_path / 'map.txt').write_text('\n'.join(str(3 * i) for i in range(10)))
        options.append(f'+head_class_map={tmp_path}/map.txt')
    if door == 'init_cfg':
        options[-1] = f'model.backbone.init_cfg=dict(type="Pretrained",checkpoint="{path}")'
    if door == 'prediction':
        cfg = load_config(CLASSIFIER, options)
        load_trained_model(cfg, path, device='cpu')
    else:
        work_dir = tmp_path / 'run'
        status, errors = tool(
            'train', CLASSIFIER, '--work-dir', work_dir, '--cfg-options', *options
        )
        assert status == 0, errors
    assert passes == {'load': 1, 'check_pickle_file': 1, 'local_path': 1}


def test_released_weights_can_be_tested_but_not_half_of_them(tool, refused, use_data, tmp_path):
    foreign(tmp_path / 'a.pth', layout='huggingface')
    options = ['--work-dir', tmp_path / 'test', '--cfg-options', *SMALL]
    line = refused('test', CLASSIFIER, tmp_path / 'a.pth', *options)
    assert 'pretrained_window_sizes' in line
    options.append('+model.backbone.pretrained_window_sizes=8')
    status, errors = tool('test', CLASSIFIER, tmp_path / 'a.pth', *options)
    assert status == 0, errors
    foreign(tmp_path / 'b.safetensors', layout='timm', num_classes=11)
    assert 'head.fc.weight' in refused('test', CLASSIFIER, tmp_path / 'b.safetensors', *options)


def test_only_what_is_trusted_may_run_code(train, tool, tmp_path):
    train()
    path = tmp_path / 'run' / 'iter_1.pth'
    proof = tmp_path / 'proof'

    class Hostile:
        def __reduce__(self):
            return open, (str(proof), 'w')

    torch.save(torch.load(path, weights_only=False) | {'extra': Hostile()}, path)
    line = train(f'load_from={path}', name='refused')
    assert 'was refused' in line and '--trust-checkpoint' in line and not proof.exists()
    # Also on the way into a backbone alone.
    init_cfg = f'model.backbone.init_cfg=dict(type="Pretrained",checkpoint="{path}")'
    assert 'was refused' in train(init_cfg, name='refused_too') and not proof.exists()
    status, errors = tool(
        'train', CLASSIFIER, '--trust-checkpoint', '--work-dir', tmp_path / 'trusted',
        '--cfg-options', *SMALL, f'load_from={path}',
    )  # fmt: skip
    assert status == 0, errors
    assert proof.exists()
