"""Blocks on large maps work in parts, where nobody can tell but by time and memory."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from swinv2_mm.analysis.memory import PeakMemory
from swinv2_mm.core import large_maps
from swinv2_mm.core.attention import WindowAttention, resolve_backend
from swinv2_mm.core.blocks import SwinBlock, draw_layers
from swinv2_mm.core.window_partition import WindowGrid, window_grid


def block(dim: int = 32, **settings) -> SwinBlock:
    torch.manual_seed(0)
    attention = WindowAttention(
        dim,
        num_heads=dim // 32,
        position_bias='log_cpb',
        pretrained_window_size=(8, 8),
        backend=resolve_backend('auto'),
    )
    made = SwinBlock(
        attention, dim=dim, shifted=True, drop_path_rate=0.5, with_extra_norm=True, **settings
    )
    draw_layers(made)
    return made.eval()


def map_and_grid(
    height: int = 60, width: int = 52, dim: int = 32
) -> tuple[torch.Tensor, WindowGrid]:
    x = torch.randn(2, height, width, dim, generator=torch.Generator().manual_seed(1))
    return x, window_grid((height, width), window=(8, 8), shifted=True, tiling='fixed')


@pytest.fixture
def parts(monkeypatch):
    """Make every map a large one, and count the branches that are added in parts."""
    calls = []

    def counted(*operands):
        calls.append(operands)
        return add(*operands)

    add = large_maps.add_in_parts
    monkeypatch.setattr('swinv2_mm.core.blocks.add_in_parts', counted)
    monkeypatch.setattr(large_maps, '_LARGE_BYTES', 0)
    monkeypatch.setattr(large_maps, '_PART_BYTES', 2**15)
    return calls


def whole(of: SwinBlock, x: torch.Tensor, grid: WindowGrid) -> torch.Tensor:
    with torch.enable_grad():
        return of(x, grid).detach()


@torch.no_grad()
def test_parts_are_the_whole(parts):
    made, (x, grid) = block(), map_and_grid()
    given = x.clone()
    for inputs in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
        parts.clear()
        found = made(inputs, grid)
        assert len(parts) == 2
        torch.testing.assert_close(found, whole(made, x, grid), rtol=1e-5, atol=1e-5)
        assert torch.equal(inputs, given), 'the map given was changed'


def hook(made: SwinBlock, of: nn.Module) -> None:
    of.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    'change',
    [
        *(
            pytest.param(lambda b, name=name: hook(b, b.get_submodule(name)), id=f'hook on {name}')
            for name in (
                'attn',
                'attn.proj',
                'norm1',
                'mlp',
                'mlp.fc1',
                'mlp.fc2',
                'norm2',
                'drop_path',
            )
        ),
        pytest.param(lambda b: b.train(), id='training'),
        pytest.param(lambda b: b.drop_path.train(), id='drop path in training'),
        pytest.param(
            lambda b: setattr(b.attn, 'backend', lambda *x: resolve_backend('auto')(*x)),
            id='own backend',
        ),
        pytest.param(lambda b: setattr(b, 'norm2', nn.Identity()), id='exchanged'),
        pytest.param(lambda b: prune.l1_unstructured(b.mlp.fc1, 'weight', 0.5), id='pruned'),
    ],
)
@torch.no_grad()
def test_whoever_would_see_parts_sees_the_whole(parts, change):
    made, (x, grid) = block(), map_and_grid()
    change(made)
    made(x, grid)
    assert not parts


@torch.no_grad()
def test_a_hook_where_each_module_is_called_once_stays_in_parts(parts):
    made, (x, grid) = block(), map_and_grid()
    seen = []
    made.attn.qkv.register_forward_hook(lambda *call: seen.append(call[2].shape))
    made.norm3.register_forward_hook(lambda *call: seen.append(call[2].shape))
    made(x, grid)
    assert len(parts) == 2
    assert seen == [(2, 60, 52, 96), (2, 60, 52, 32)]


@torch.no_grad()
def test_orders_of_norms_and_autocast_compute_the_whole(parts):
    x, grid = map_and_grid()
    block(norm_order='pre')(x, grid)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        block()(x, grid)
    assert not parts


@torch.no_grad()
def test_a_large_map_takes_less_memory():
    """The queries, keys and values are then the most: without parts it is the MLP."""
    x, grid = map_and_grid(400, 320)
    peaks = []
    for run in (block(), block()):
        if peaks:
            hook(run, run.mlp)
        with PeakMemory() as memory:
            memory.hold(x)  # Some operators make views of it, which count.
            run(x, grid)
        peaks.append(memory.peak / (x.numel() * x.element_size()))
    # In maps: the input, 3 of queries, keys and values, 1 of heads; or 4 within the MLP.
    assert peaks[0] < 6
    assert peaks[1] > 6.5, peaks
