"""Fused window attention in Triton: the backward kernels.

Imported only when a kernel is launched: needs Triton. Layouts as in ``forward``.

With q^ = q / |q|, k^ = k / |k|, s the scale, P the attention weights, dP = dO V^T, and dS the
gradient of the logits, P * (dP - delta) with delta = rowsum(P * dP):

    dV = P^T dO
    A = dS K^,   dQ = s / |q| * (A - q^ (A . q^))
    B = dS^T Q^, dK = s / |k| * (B - k^ (B . k^))
    dlog s = sum(dS * s q^ . k^)
    dbias[offset] = sum of dS over windows and over the pairs of that offset

There are three kernels, each of which holds its sums in registers: dQ by query tiles, dK and dV by
key tiles, and dbias by pairs of tiles, walking over windows, so that only one tile per
``per_program`` windows is added to the table. ``FIXED_POINT`` makes these sums 64-bit integers,
whose order does not matter.

P, dS and the directions are not rounded to half precision (``wide_product``): the rows of dS add up
to zero, so that what a rounded one is wrong by would be large beside what remains of its products.

rowsum(dO * O) is the same delta, known before the keys are seen, but O was rounded on its way, and
the rows of dS would not add up to zero. The query kernel starts from it, adds what is missing,
corrects dQ by that (dS is linear in delta), and leaves the exact one for the other kernels.
"""

# ruff: noqa: ANN001, ANN201 - arguments of a kernel are pointers, tiles and scalars of the device.

from __future__ import annotations

import triton
import triton.language as tl

from .forward import (
    MAX_LOG,
    RUNTIME,
    inverse_norm,
    load_rows,
    narrow,
    product,
    split_inverse,
    store_rows,
    table_index,
    tile_logits,
    wide_product,
    window_tokens,
)


@triton.jit
def tile_weights(
    q, k, v, d_out, lse, unit_q, unit_k, bias, segment_q, segment_k, real_k,
    SHIFTED: tl.constexpr, ACC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return the attention weights P of a tile, dP, and cosine * scale, all (BM, BN)."""
    logits, cosines = tile_logits(
        q, k, unit_q, unit_k, bias, segment_q, segment_k, real_k, SHIFTED, ACC, WIDE
    )  # fmt: skip
    weights = tl.exp(logits - lse[:, None])
    return weights, product(d_out, tl.trans(v), ACC, WIDE), cosines


@triton.jit
def through_norm(grad, unit, scale, inverse):
    """Gradient of a vector from that of its direction, row by row."""
    along = tl.sum(grad * unit, 1)
    return (grad - unit * along[:, None]) * (scale * inverse)[:, None]


@triton.jit
def add_to_table(d_bias, tile, t_q, t_k, factor, N, MH, MW, FIXED_POINT: tl.constexpr):
    """Add a tile of logit gradients to the head's table."""
    mask = (t_q < N)[:, None] & (t_k < N)[None, :]
    index = table_index(t_q, t_k, MH, MW)
    if FIXED_POINT:
        tile = tl.floor(tile * tl.load(factor) + 0.5).to(tl.int64)
    tl.atomic_add(d_bias + index, tile, mask=mask, sem='relaxed')


@triton.jit(do_not_specialize=RUNTIME)
def query_backward_kernel(
    qkv, logit_scale, bias, out, d_out, lse, delta, d_qkv,
    num_windows, per_program, H, W, shift_y, shift_x, MH, MW, HEADS,
    D: tl.constexpr, DP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SHIFTED: tl.constexpr, ACC: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Write dQ and delta. Grid: windows x heads x tiles of BM queries; walks over BN keys."""
    N = MH * MW
    C = HEADS * D
    TILES = tl.cdiv(N, BM)
    pid = tl.program_id(0)
    head = pid // TILES % HEADS
    window = pid // (TILES * HEADS)
    t_q = pid % TILES * BM + tl.arange(0, BM)
    bias += head * ((2 * MH - 1) * (2 * MW - 1))
    scale = tl.exp(tl.minimum(tl.load(logit_scale + head), MAX_LOG))
    image, pixel_q, real_q, segment_q = window_tokens(t_q, window, H, W, shift_y, shift_x, MH, MW)
    base = image * H * W
    source = qkv + base * (3 * C) + head * D
    q = load_rows(source, pixel_q, real_q, 3 * C, D, DP)
    do = load_rows(d_out + base * C + head * D, pixel_q, real_q, C, D, DP)
    o = load_rows(out + base * C + head * D, pixel_q, real_q, C, D, DP)
    row = (window * HEADS + head).to(tl.int64) * N
    lse_q = tl.load(lse + row + t_q, mask=t_q < N, other=float('inf'))
    delta_q = tl.sum(do.to(ACC) * o.to(ACC), 1)
    inverse_q = inverse_norm(q, ACC)
    missing = tl.zeros((BM,), ACC)
    to_q = tl.zeros((BM, DP), ACC)
    mean_k = tl.zeros((BM, DP), ACC)
    for start in range(0, N, BN):
        t_k = start + tl.arange(0, BN)
        _, pixel_k, real_k, segment_k = window_tokens(t_k, window, H, W, shift_y, shift_x, MH, MW)
        k = load_rows(source + C, pixel_k, real_k, 3 * C, D, DP)
        v = load_rows(source + 2 * C, pixel_k, real_k, 3 * C, D, DP)
        inverse_k = inverse_norm(k, ACC)
        weights, grad, _ = tile_weights(
            q, k, v, do, lse_q, inverse_q * scale, inverse_k,
            tl.load(bias + table_index(t_q, t_k, MH, MW)),
            segment_q, segment_k, real_k, SHIFTED, ACC, WIDE,
        )  # fmt: skip
        grad = weights * (grad - delta_q[:, None])
        missing += tl.sum(grad, 1)
        short_k, rest_k = split_inverse(k, inverse_k, ACC, WIDE)
        to_q += wide_product(grad * rest_k[None, :], short_k, ACC, WIDE)
        share = narrow(weights * rest_k[None, :], q.dtype, WIDE)
        mean_k += product(share, short_k, ACC, WIDE)
    to_q -= missing[:, None] * mean_k
    d_q = through_norm(to_q, q.to(ACC) * inverse_q[:, None], scale, inverse_q)
    store_rows(d_qkv + base * (3 * C) + head * D, d_q, pixel_q, real_q, 3 * C, D, DP, WIDE)
    tl.store(delta + row + t_q, delta_q + missing, mask=t_q < N)
