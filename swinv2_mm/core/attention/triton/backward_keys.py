"""Fused window attention in Triton: backward kernels of keys, values and bias table.

Imported only when a kernel is launched: needs Triton. See ``backward``, whose
query kernel runs before these and leaves ``delta``.
"""

# ruff: noqa: ANN001, ANN201 - arguments of a kernel are pointers, tiles and scalars of the device.

from __future__ import annotations

import triton
import triton.language as tl

from .backward import add_to_table, through_norm, tile_weights
from .forward import (
    MAX_LOG,
    RUNTIME,
    inverse_norm,
    load_rows,
    split_inverse,
    store_rows,
    table_index,
    wide_product,
    window_tokens,
)


@triton.jit(do_not_specialize=RUNTIME)
def key_backward_kernel(
    qkv, logit_scale, bias, d_out, lse, delta, d_qkv, d_scale,
    num_windows, per_program, H, W, shift_y, shift_x, MH, MW, HEADS,
    D: tl.constexpr, DP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SHIFTED: tl.constexpr, ACC: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Write dK, dV and the program's part of dlog s.

    Grid: windows x heads x tiles of BN keys; walks over BM queries.
    """
    N = MH * MW
    C = HEADS * D
    TILES = tl.cdiv(N, BN)
    pid = tl.program_id(0)
    head = pid // TILES % HEADS
    window = pid // (TILES * HEADS)
    t_k = pid % TILES * BN + tl.arange(0, BN)
    bias += head * ((2 * MH - 1) * (2 * MW - 1))
    scale = tl.exp(tl.minimum(tl.load(logit_scale + head), MAX_LOG))
    image, pixel_k, real_k, segment_k = window_tokens(t_k, window, H, W, shift_y, shift_x, MH, MW)
    base = image * H * W
    source = qkv + base * (3 * C) + head * D
    k = load_rows(source + C, pixel_k, real_k, 3 * C, D, DP)
    v = load_rows(source + 2 * C, pixel_k, real_k, 3 * C, D, DP)
    row = (window * HEADS + head).to(tl.int64) * N
    inverse_k = inverse_norm(k, ACC)
    to_k = tl.zeros((BN, DP), ACC)
    d_v = tl.zeros((BN, DP), ACC)
    sum_scale = tl.zeros((BN,), ACC)
    for start in range(0, N, BM):
        t_q = start + tl.arange(0, BM)
        _, pixel_q, real_q, segment_q = window_tokens(t_q, window, H, W, shift_y, shift_x, MH, MW)
        q = load_rows(source, pixel_q, real_q, 3 * C, D, DP)
        do = load_rows(d_out + base * C + head * D, pixel_q, real_q, C, D, DP)
        lse_q = tl.load(lse + row + t_q, mask=t_q < N, other=float('inf'))
        delta_q = tl.load(delta + row + t_q, mask=t_q < N, other=0.0)
        inverse_q = inverse_norm(q, ACC)
        weights, grad, cosines = tile_weights(
            q, k, v, do, lse_q, inverse_q * scale, inverse_k,
            tl.load(bias + table_index(t_q, t_k, MH, MW)),
            segment_q, segment_k, real_k, SHIFTED, ACC, WIDE,
        )  # fmt: skip
        grad = weights * (grad - delta_q[:, None])
        sum_scale += tl.sum(grad * cosines, 0)
        short_q, rest_q = split_inverse(q, inverse_q, ACC, WIDE)
        to_k += wide_product(tl.trans(grad * rest_q[:, None]), short_q, ACC, WIDE)
        d_v += wide_product(tl.trans(weights), do, ACC, WIDE)
    d_k = through_norm(to_k, k.to(ACC) * inverse_k[:, None], scale, inverse_k)
    target = d_qkv + base * (3 * C) + head * D
    store_rows(target + C, d_k, pixel_k, real_k, 3 * C, D, DP, WIDE)
    store_rows(target + 2 * C, d_v, pixel_k, real_k, 3 * C, D, DP, WIDE)
    tl.store(d_scale + pid, tl.sum(sum_scale, 0))


@triton.jit(do_not_specialize=RUNTIME)
def bias_backward_kernel(
    qkv, logit_scale, bias, d_out, lse, delta, d_bias, factor,
    num_windows, per_program, H, W, shift_y, shift_x, MH, MW, HEADS,
    D: tl.constexpr, DP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SHIFTED: tl.constexpr, FIXED_POINT: tl.constexpr,
    ACC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Add up dbias. Grid: chunks of windows x heads x query tiles x key tiles."""
    N = MH * MW
    C = HEADS * D
    TILES_Q = tl.cdiv(N, BM)
    TILES_K = tl.cdiv(N, BN)
    pid = tl.program_id(0)
    head = pid // (TILES_Q * TILES_K) % HEADS
    first = pid // (TILES_Q * TILES_K * HEADS) * per_program
    t_q = pid // TILES_K % TILES_Q * BM + tl.arange(0, BM)
    t_k = pid % TILES_K * BN + tl.arange(0, BN)
    table = head * ((2 * MH - 1) * (2 * MW - 1))
    scale = tl.exp(tl.minimum(tl.load(logit_scale + head), MAX_LOG))
    tile_bias = tl.load(bias + table + table_index(t_q, t_k, MH, MW))
    sum_logits = tl.zeros((BM, BN), ACC)
    for window in range(first, tl.minimum(first + per_program, num_windows)):
        image, pixel_q, real_q, segment_q = window_tokens(
            t_q, window, H, W, shift_y, shift_x, MH, MW
        )
        _, pixel_k, real_k, segment_k = window_tokens(t_k, window, H, W, shift_y, shift_x, MH, MW)
        base = image * H * W
        source = qkv + base * (3 * C) + head * D
        q = load_rows(source, pixel_q, real_q, 3 * C, D, DP)
        k = load_rows(source + C, pixel_k, real_k, 3 * C, D, DP)
        v = load_rows(source + 2 * C, pixel_k, real_k, 3 * C, D, DP)
        do = load_rows(d_out + base * C + head * D, pixel_q, real_q, C, D, DP)
        row = (window * HEADS + head).to(tl.int64) * N
        lse_q = tl.load(lse + row + t_q, mask=t_q < N, other=float('inf'))
        delta_q = tl.load(delta + row + t_q, mask=t_q < N, other=0.0)
        weights, grad, _ = tile_weights(
            q, k, v, do, lse_q, inverse_norm(q, ACC) * scale, inverse_norm(k, ACC),
            tile_bias, segment_q, segment_k, real_k, SHIFTED, ACC, WIDE,
        )  # fmt: skip
        sum_logits += weights * (grad - delta_q[:, None])
    add_to_table(d_bias + table, sum_logits, t_q, t_k, factor, N, MH, MW, FIXED_POINT)
