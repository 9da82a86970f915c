"""What makes a training fit, and that the estimate is what a real step keeps."""

import json
import math
import shlex

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from torch import nn

import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.complexity import classifier_cfg
from swinv2_mm.analysis.fake_model import build_fake, fake_images
from swinv2_mm.analysis.fixed_cost import FixedCost
from swinv2_mm.analysis.memory import PeakMemory, estimate_memory, gpu_habits
from swinv2_mm.analysis.memory_plan import estimate_plan, is_mixed_precision, parse_budget, plans
from swinv2_mm.cli import train
from swinv2_mm.config.file import load_config
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention.backends import sequential
from swinv2_mm.engine.precision import Bfloat16OptimWrapper
from swinv2_mm.errors import UserError

CLASSIFIER = ROOT / 'configs/classification/swinv2-nano-w8_flowers.py'
SHRUNK = [
    'model.backbone.arch=dict(embed_dim=16,depths=(1,1,1,1),num_heads=(1,2,4,8))',
    'model.head.in_channels=128', 'train_cfg.max_iters=4', 'train_cfg.val_interval=9',
    'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
]  # fmt: skip
# All windows of a stage fit into one group of ``sequential`` only if they are few.
ARCH = dict(embed_dim=32, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8))


class SavedTensors:
    """Bytes that autograd keeps for the backward pass, each storage once, without weights."""

    def __init__(self, model):
        self.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.kept = {}

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            # Held, so that no other tensor gets the same address.
            self.kept[storage.data_ptr()] = storage
        return tensor

    def total(self):
        return sum(storage.nbytes() for storage in self.kept.values())


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bf16'])
def test_estimate_is_what_autograd_saves(amp):
    fake, real = both(attention='eager')
    estimate = estimate_memory(
        FixedCost(fake), fake_images(fake, batch=3, size_px=(128, 128)), amp=amp, with_testing=False
    )
    saved = SavedTensors(real)
    images = torch.zeros(3, 3, 128, 128)
    with gpu_habits(), torch.autocast('cpu', dtype=torch.bfloat16, enabled=amp):
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            real(images)
    # The estimate leaves out the images, of which the stem keeps a copy in half precision.
    measured = saved.total() - (0 if amp else images.nbytes)
    print(f'estimate {estimate.activations:,} measured {measured:,}')
    assert estimate.activations == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bf16'])
@pytest.mark.parametrize(
    'options',
    [
        dict(attention='eager'),
        dict(attention='sequential'),
        dict(attention='eager', with_cp=(True, True, False, False)),
        dict(attention='sequential', with_cp=True),
        dict(attention='eager', frozen_stages=1),
    ],
    ids=lambda options: '-'.join(f'{k}={v}' for k, v in options.items()),
)
def test_estimate_is_what_a_real_step_holds(options, amp):
    fake, real = both(**options)
    estimate = estimate_memory(
        FixedCost(fake), fake_images(fake, batch=3, size_px=(128, 128)), amp=amp, with_testing=False
    )
    images = torch.zeros(3, 3, 128, 128)
    held = [*real.parameters(), *real.buffers(), images]
    attention = nn.functional.scaled_dot_product_attention
    with PeakMemory() as memory, gpu_habits():
        # The kernel that it stands for is not there on a CPU.
        nn.functional.scaled_dot_product_attention = attention
        for tensor in held:
            memory.hold(tensor)
        before = memory.live
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=amp):
            out = real(images)
        kept = memory.live - before
        out.float().mean().backward()
    print(f'kept: {estimate.activations:,} {kept:,}; peak: {estimate.training:,} {memory.peak:,}')
    assert estimate.activations == pytest.approx(kept, rel=0.02)
    # The optimiser's step, which updates all weights at once, is the peak where little is kept.
    peak = max(memory.peak, estimate.weights + 2 * estimate.gradients)
    assert estimate.training - estimate.optimizer_states == pytest.approx(peak, rel=0.05)


def both(**options):
    """A fake classifier and a real one."""
    cfg = classifier_cfg(ARCH, window_size=8, num_classes=10)
    cfg['backbone'].update(options)
    fake = build_fake(cfg, scope='mmpretrain')
    backbone = SwinTransformerV2(ARCH, window_size=8, out_indices=(3,), **options)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone
            self.head = nn.Linear(256, 10)

        def forward(self, x):
            return self.head(nn.functional.adaptive_avg_pool2d(self.backbone(x)[-1], 1).flatten(1))

    return fake, Classifier().train()


def test_every_plan_is_a_config_that_takes_less():
    cfg = load_config(str(CLASSIFIER))
    found = list(plans(cfg, batch=4))
    words = [plan.words for plan in found]
    assert words[:2] == ['as it is', 'bf16'] and words[-1] == 'stage 2 frozen'
    assert 'batches of 1, 4 per step' in words and found[-1].batch == 1
    estimates = []
    for plan in (found[0], found[1], found[-4], found[-1]):
        changed = load_config(str(CLASSIFIER), plan.options)
        assert is_mixed_precision(changed) == (plan is not found[0])
        estimates.append(estimate_plan(cfg, plan, size_px=(256, 256)))
    kept = [estimate.activations for estimate in estimates]
    assert kept == sorted(kept, reverse=True) and kept[-1] < kept[0] / 4
    flops = [e.training_flops for e in estimates]
    assert flops[0] == flops[1]
    assert estimates[-1].gradients < estimates[0].gradients
    assert not any(
        'precision' in o for p in plans(cfg, batch=4, with_bf16=False) for o in p.options
    )
    halved = load_config(str(CLASSIFIER), ['precision=bf16', 'accumulate=3'])
    assert 'bf16' not in [plan.words for plan in plans(halved, batch=4)]
    assert any('accumulate=6' in plan.options for plan in plans(halved, batch=2))
    assert 'batches of 1, 15 per step' in [plan.words for plan in plans(cfg, batch=15)]
    cfg.model.backbone.with_cp = [False, True, True, True]
    options = [plan.options for plan in plans(cfg, batch=1)]
    assert sum('model.backbone.with_cp=[True,True,True,True]' in new for new in options) == 4


def test_training_takes_what_is_recommended(use_data, tmp_path):
    leaf = ROOT / 'configs/classification/swinv2-nano-w8_digits.py'
    found = list(plans(load_config(str(leaf), SHRUNK), batch=4))
    last_of_kind = {}
    for plan in found:
        load_config(str(leaf), [*SHRUNK, *plan.options])
        # Options add up: the last plan of a kind has all that came before.
        last_of_kind[len(plan.options)] = plan
    assert len(last_of_kind) == 6
    for number, plan in last_of_kind.items():
        options = [*SHRUNK, 'train_dataloader.batch_size=4', *plan.options]
        runner = train(leaf, options=options, work_dir=tmp_path / str(number))
        layers, wrapper = runner.model.backbone.layers, runner.optim_wrapper
        assert runner.iter == 4 and wrapper.optimizer.state, plan.words
        assert isinstance(wrapper, Bfloat16OptimWrapper) == ('precision=bf16' in plan.options)
        assert wrapper._accumulative_counts * runner.train_dataloader.batch_size == 4
        trained = [p.requires_grad for p in layers[0].blocks.parameters()]
        assert all(trained) == any(trained) == ('frozen_stages' not in str(plan.options))
        in_groups = [layer.blocks[0].attn.backend is sequential for layer in layers]
        assert sum(in_groups) == str(plan.options).count('sequential'), plan.words


def test_recomputing_is_work():
    plain, saved = (
        estimate_memory(
            FixedCost(model), fake_images(model, batch=1, size_px=(64, 64)), amp=False
        ).training_flops
        for model in (both()[0], both(with_cp=True)[0])
    )
    # A third of the step, but for the stem, the mergings and the head.
    assert 1.2 < saved / plain < 4 / 3


@pytest.mark.parametrize(
    ('text', 'size'),
    [('24GB', 24 * 2**30), ('24', 24 * 2**30), ('1.5 GiB', 1.5 * 2**30), ('500mb', 500 * 2**20)],
)
def test_budget(text, size):
    assert parse_budget(text) == size


@pytest.mark.parametrize('text', ['', '0', 'much', '-3GB', '24TB'])
def test_budget_that_is_none(text):
    with pytest.raises(UserError, match='--budget'):
        parse_budget(text)


def test_other_model():
    cfg = Config(dict(model=dict(backbone=dict(type='ResNet'))))
    with pytest.raises(UserError, match=r'model\.backbone'):
        next(plans(cfg, batch=1))


@pytest.fixture
def shallow(tmp_path):
    """A config of fewer blocks: each plan is a run of the model."""
    path = tmp_path / 'shallow.py'
    path.write_text(
        f'_base_ = {str(CLASSIFIER)!r}\n'
        'model = dict(backbone=dict(arch=dict(depths=(1, 1, 1, 1))))\n'
    )
    return path


class TestTool:
    def test_the_line_it_prints_fits(self, shallow, tool, tmp_path):
        out = tmp_path / 'out.json'
        cfg = load_config(str(shallow))
        _, _, third, *_ = plans(cfg, batch=cfg.train_dataloader.batch_size)
        peak = estimate_plan(cfg, third, size_px=(128, 128)).training
        budget = f'{1.01 * peak / 0.9 / 2**20}MB'
        arguments = ['analysis/memory', shallow, '--budget', budget]
        status, errors = tool(*arguments, '--out', out)
        assert status == 0, errors
        *no, yes = json.loads(out.read_text())['plans']
        # Masks and coordinates count where they are made first: they are cached.
        assert yes['words'] == third.words and yes['peak'] == pytest.approx(peak, rel=1e-3)
        assert not any(plan['fits'] for plan in no)
        line = next(x for x in tool.printed.splitlines() if x.startswith('--cfg-options'))
        options = shlex.split(line)
        assert options[1:] == yes['options']
        status, errors = tool(*arguments, *options)
        assert status == 0 and 'it fits as it is' in tool.printed

    def test_shared_states(self, shallow, tool, tmp_path):
        peaks = []
        for gpus in (1, 8):
            out = tmp_path / f'{gpus}.json'
            arguments = [shallow, '--budget', 1, '--batch', 1, '--zero-1', gpus, '--out', out]
            assert tool('analysis/memory', *arguments)[0] == 0
            (plan,) = json.loads(out.read_text())['plans']
            peaks.append(plan['peak'])
            states = plan['memory']['optimizer_states']
        assert peaks[0] - peaks[1] == states - states // 8

    @pytest.mark.parametrize(
        ('arguments', 'words'),
        [
            (['--budget', 'lots'], '--budget takes a size'),
            (['--budget', '1MB', '--batch', '1', '--no-bf16'], 'fit'),
            (['--budget', '1', '--batch', '0'], 'positive'),
            (['--budget', '1', '--shape', '0'], '--shape takes'),
        ],
        ids=str,
    )
    def test_mistakes(self, arguments, words, shallow, tool):
        shape = [] if '--shape' in arguments else ['--shape', 32]
        status, errors = tool('analysis/memory', shallow, *arguments, *shape)
        assert status == 1 and words in errors and 'Traceback' not in errors


def test_giant_by_name(tool, tmp_path):
    """The command of docs/performance.md, with fewer blocks."""
    out = tmp_path / 'out.json'
    arch = (
        'dict(_delete_=True,embed_dim=512,depths=(1,1,1,1),num_heads=(16,32,64,128),'
        'extra_norm_every=1)'
    )
    status, errors = tool(
        'analysis/memory', ROOT / 'configs/classification/swinv2-g-w40_72xb8_in21k-pre_in1k-640.py',
        '--shape', 1536, '--batch', 1, '--budget', '80GB', '--out', out,
        '--cfg-options', 'model.backbone.window_size=32', f'model.backbone.arch={arch}',
    )  # fmt: skip
    assert status == 0, errors
    assert math.isfinite(json.loads(out.read_text())['plans'][-1]['peak'])
