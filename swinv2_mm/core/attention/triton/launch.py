"""Fused window attention in Triton: when it can run, how work is split, and its gradient for torch.

Two torch operators, so that ``torch.compile`` sees one node each. The kernels are imported at the
first launch; this module needs no Triton. ``TRITON_INTERPRET=1``, set before Triton is imported,
runs them on a CPU, slowly, for tests.
"""

from __future__ import annotations

import importlib.util
import math
import os
from functools import lru_cache
from typing import Any, NamedTuple, Sequence  # noqa: UP035  the one that torch 2.6 to 2.15 know

import torch
from torch import Tensor

from ...position_bias import computing_dtype
from ...window_partition import Size, WindowGrid
from ..eager import eager
from ..failures import gradients_or_defined
from ..prologue import MAX_LOGIT_SCALE, without_autocast

# Largest window side and head the tiles were chosen for, and the smallest tile of ``tl.dot``.
_MAX_SIDE, _MAX_HEAD_DIM, _MIN_TILE = 64, 128, 16
# Side of a tile; the smaller one for wide heads, whose tiles would not fit into registers.
# Keys are read in shorter tiles than queries.
_TILE, _WIDE_TILE, _KEY_TILE = 64, 32, 32
# Programs per multiprocessor that hide each other's latency before windows share a program.
_PROGRAMS_PER_SM = 8


@lru_cache
def _is_installed() -> bool:
    return importlib.util.find_spec('triton') is not None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def device_gap(device: torch.device) -> str | None:
    """Say why Triton cannot run on a device; ``None`` where it can."""
    if not _is_installed():
        return 'Triton is not installed'
    if device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1':
        return None
    if device.type != 'cuda':
        return f'Triton does not run on {device.type}'
    if torch.version.cuda and torch.cuda.get_device_capability(device) < (8, 0):
        return 'the GPU is older than compute capability 8.0'
    return None


def triton_gap(qkv: Tensor, *, window: Size, head_dim: int) -> str | None:
    """Say why the kernels cannot run; ``None`` where they can."""
    if max(window) > _MAX_SIDE:
        return f'a window side is larger than {_MAX_SIDE}'
    if head_dim > _MAX_HEAD_DIM:
        return f'heads have more than {_MAX_HEAD_DIM} channels'
    if qkv.dtype == torch.float64 and qkv.device.type != 'cpu':
        return 'the kernels add in float32'
    # Not a size that is open in a graph: it is asked again where it is known.
    if qkv.ndim == 4 and isinstance(qkv.shape[1], int) and math.prod(qkv.shape[1:]) >= 2**31:
        return 'a map of an image has 2^31 numbers or more, and the kernels count in 32 bits'
    return device_gap(qkv.device)


class _Launch(NamedTuple):
    """What all kernels of one call share.

    Attributes:
        runtime: H, W, the shifts, the sides of a window and the heads.
        constants: What a binary is compiled for.
    """

    runtime: tuple[int, ...]
    constants: dict[str, Any]
    num_windows: int
    heads: int
    tokens: int

    @property
    def is_single(self) -> bool:
        """Whether one tile holds a whole window."""
        return self.tokens <= self.constants['BM']


def _power_of_two(x: int) -> int:
    return max(_MIN_TILE, 1 << (x - 1).bit_length())


def _plan(qkv: Tensor, heads: int, geometry: Sequence[int]) -> _Launch:
    import triton.language as tl

    (b, h, w, channels), (mh, mw, *shift) = qkv.shape, geometry
    num_windows = b * -(-h // mh) * -(-w // mw)
    head_dim = channels // (3 * heads)
    padded_dim, is_half = _power_of_two(head_dim), qkv.element_size() == 2
    largest = _TILE if padded_dim <= 32 else _WIDE_TILE
    tile = min(largest, _power_of_two(mh * mw))
    constants = {
        'D': head_dim, 'DP': padded_dim, 'BM': tile, 'BN': min(tile, _KEY_TILE),
        'SHIFTED': any(shift),
        # Tiles and warps are those that ptxas holds in registers; none is measured on a GPU.
        'num_warps': 8 if padded_dim > 64 or (tile == _TILE and not is_half) else 4,
        'num_stages': 2 if is_half and padded_dim <= 64 else 1,
        'ACC': tl.float64 if qkv.dtype == torch.float64 else tl.float32,
        'WIDE': qkv.device.type == 'cpu',
    }  # fmt: skip
    runtime = (h, w, *shift, mh, mw, heads)
    return _Launch(runtime, constants, num_windows, heads, mh * mw)


def _windows_per_program(launch: _Launch, device: torch.device, *, tiles: int) -> int:
    """Share a program among windows once the device is full; more would only add traffic."""
    sms = 1
    if device.type == 'cuda':
        sms = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, launch.num_windows * launch.heads * tiles // (sms * _PROGRAMS_PER_SM))


@torch.library.custom_op('swinv2_mm::window_attention', mutates_args=())
def window_attention(
    qkv: Tensor, logit_scale: Tensor, bias: Tensor, geometry: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Attend within the windows of a contiguous map.

    Args:
        qkv: The map.
        logit_scale: Logarithm of the scales, at least float32.
        bias: The bias table, of the type of ``logit_scale``.
        geometry: Mh, Mw and the shifts along both axes.

    Shapes:
        qkv (B, H, W, 3C), logit_scale (heads,), bias (heads, (2Mh - 1) * (2Mw - 1))
        -> (B, H, W, C), log-sum-exp of each query (B * nH * nW, heads, N)
    """
    from .forward import forward_kernel

    launch = _plan(qkv, logit_scale.numel(), geometry)
    constants = launch.constants
    if launch.is_single:
        constants['BN'] = constants['BM']
    out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
    lse = logit_scale.new_empty(launch.num_windows, launch.heads, launch.tokens)
    tiles = -(-launch.tokens // constants['BM'])
    share = _windows_per_program(launch, qkv.device, tiles=tiles) if launch.is_single else 1
    programs = -(-launch.num_windows // share) * launch.heads * tiles
    with torch.cuda.device_of(qkv):
        forward_kernel[(programs,)](
            qkv, logit_scale, bias, out, lse, launch.num_windows, share, *launch.runtime,
            SINGLE=launch.is_single, **constants,
        )  # fmt: skip
    return out, lse


@window_attention.register_fake
def _(
    qkv: Tensor, logit_scale: Tensor, bias: Tensor, geometry: Sequence[int]
) -> tuple[Tensor, Tensor]:
    b, h, w, channels = qkv.shape
    mh, mw = geometry[:2]
    num_windows = b * ((h + mh - 1) // mh) * ((w + mw - 1) // mw)
    lse = logit_scale.new_empty(num_windows, logit_scale.shape[0], mh * mw)
    return qkv.new_empty(b, h, w, channels // 3), lse


@torch.library.custom_op('swinv2_mm::window_attention_backward', mutates_args=())
def window_attention_backward(
    d_out: Tensor,
    qkv: Tensor,
    logit_scale: Tensor,
    bias: Tensor,
    out: Tensor,
    lse: Tensor,
    geometry: Sequence[int],
    needs_bias: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``window_attention``, each of the shape and type of its operand.

    Args:
        needs_bias: Without it the gradient of the table stays zero.
        deterministic: Sum that of the table in fixed point: bit-wise equal from run to run.
    """
    from .backward import query_backward_kernel
    from .backward_keys import bias_backward_kernel, key_backward_kernel

    launch = _plan(qkv, logit_scale.numel(), geometry)
    constants, heads = launch.constants, launch.heads
    d_qkv = torch.empty_like(qkv)
    d_bias = torch.zeros_like(bias, dtype=torch.int64 if deterministic else bias.dtype)
    factor = _fixed_point_factor(d_out, qkv, launch).to(bias.dtype) if deterministic else bias
    query_tiles, key_tiles = (-(-launch.tokens // constants[side]) for side in ('BM', 'BN'))
    tiles = query_tiles * key_tiles
    share = _windows_per_program(launch, qkv.device, tiles=tiles)
    chunks = -(-launch.num_windows // share)
    operands = (qkv, logit_scale, bias)
    runtime = (launch.num_windows, share, *launch.runtime)
    delta = torch.empty_like(lse)
    d_scale = bias.new_empty(launch.num_windows, heads, key_tiles)
    with torch.cuda.device_of(qkv):
        query_backward_kernel[(launch.num_windows * heads * query_tiles,)](
            *operands, out, d_out, lse, delta, d_qkv, *runtime, **constants
        )
        key_backward_kernel[(d_scale.numel(),)](
            *operands, d_out, lse, delta, d_qkv, d_scale, *runtime,
            **constants | {'BM': constants['BN']},
        )  # fmt: skip
        if needs_bias:
            bias_backward_kernel[(chunks * heads * tiles,)](
                *operands, d_out, lse, delta, d_bias, factor, *runtime,
                **constants | {'num_warps': 8}, FIXED_POINT=deterministic,
            )  # fmt: skip
    if deterministic:
        d_bias = (d_bias.double() / factor).to(bias.dtype)
    return d_qkv, d_scale.sum((0, 2)) * (logit_scale <= MAX_LOGIT_SCALE), d_bias


def _fixed_point_factor(d_out: Tensor, qkv: Tensor, launch: _Launch) -> Tensor:
    """Power of two that keeps sums of logit gradients in 62 bits; NaN or 0 if one is not finite."""
    # |dS| <= 2 max|dO V^T|, and an entry of the table sums at most N of them per window.
    v = qkv[..., 2 * d_out.shape[3] :]
    bound = 2.0 * launch.constants['D'] * launch.tokens * launch.num_windows
    for x in (d_out, v):
        bound = bound * torch.linalg.vector_norm(x, torch.inf).double()
    return torch.exp2((61 - bound.log2().ceil()).clamp(max=100))


@window_attention_backward.register_fake
def _(
    d_out: Tensor, qkv: Tensor, logit_scale: Tensor, bias: Tensor, *_: object
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in (qkv, logit_scale, bias))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    qkv, logit_scale, bias, ctx.geometry = inputs
    ctx.save_for_backward(qkv, logit_scale, bias, *output)


def _backward(ctx: Any, d_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    qkv, logit_scale, bias, *_ = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]

    def defined(qkv: Tensor, logit_scale: Tensor, bias: Tensor) -> Tensor:
        window, shift = tuple(ctx.geometry[:2]), tuple(ctx.geometry[2:])
        grid = WindowGrid(tuple(qkv.shape[1:3]), window, shift, window)
        return eager(qkv, grid, logit_scale, bias)

    def launched() -> tuple[Tensor, ...]:
        deterministic = torch.are_deterministic_algorithms_enabled()
        return window_attention_backward(
            d_out.contiguous(), *ctx.saved_tensors, ctx.geometry, needed[2], deterministic
        )

    inputs = (qkv, logit_scale, bias)
    with without_autocast(d_out.device):
        return *gradients_or_defined('triton', launched, defined, inputs, needed, d_out), None


window_attention.register_autograd(_backward, setup_context=_setup_context)


def fused(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run the kernels as a backend; the caller has asked ``triton_gap``."""
    dtype = computing_dtype(qkv)
    operands = (qkv.contiguous(), logit_scale.to(dtype).flatten(), bias.to(dtype).contiguous())
    return window_attention(*operands, [*grid.window, *grid.shift])[0]
