"""Fused window attention in Triton: the geometry of a tile, and the forward kernel.

Imported only when a kernel is launched: needs Triton.

Layout. ``qkv`` is the contiguous map (B, H, W, 3C); channel ``part * C + head * D + i`` holds
query, key or value (part 0, 1, 2). No window is ever copied: a program computes for each token of
its window which pixel of the map it is, so that padding, shift, partition and the way back are
address arithmetic. ``bias`` is the table (heads, (2 MH - 1) * (2 MW - 1)), ``lse`` and ``delta``
are (windows, heads, N) with windows = B * nH * nW.

Tiles. A program owns BM queries of one head and walks over all keys, BN at a time, with an online
softmax; N x N logits exist as one BM x BN tile in registers. Where one tile holds a whole window
(``SINGLE``, up to 64 tokens) the program walks over several windows of its head instead, and reads
the bias tile once for all of them.

Precision. Queries and keys are multiplied as they come, which is exact for half precision with
float32 sums; norms and scale are applied to the float32 product. Rounding normalised vectors
instead would cost an error of 100 / 256 in a logit.
"""

# ruff: noqa: ANN001, ANN201 - arguments of a kernel are pointers, tiles and scalars of the device.

from __future__ import annotations

import triton
import triton.language as tl

# As constants of a kernel: SEAM_PENALTY, MAX_LOGIT_SCALE and the eps of F.normalize. A test holds
# the first two against their originals.
SEAM = tl.constexpr(-100.0)
MAX_LOG = tl.constexpr(4.605170185988092)
EPS = tl.constexpr(1e-12)
# Logit of a key that does not exist. Finite: a tile of nothing else must not give inf - inf;
# what it adds is scaled to zero by the first real key, and every window has one.
NOTHING = tl.constexpr(-1e30)

# Known at run time only, and nothing is made of their values: a training on images of many sizes
# meets a handful of binaries.
RUNTIME = [
    'num_windows', 'per_program', 'H', 'W', 'shift_y', 'shift_x', 'MH', 'MW', 'HEADS',
]  # fmt: skip


@triton.jit
def tokens_of(t, row, column, H, W, nh, nw, shift_y, shift_x, MH, MW):
    """Return pixel, whether it is real, and segment of tokens ``t`` of the window at a place."""
    y = row * MH + t // MW + shift_y
    x = column * MW + t % MW + shift_x
    wraps_y = y >= nh * MH
    wraps_x = x >= nw * MW
    y = tl.where(wraps_y, y - nh * MH, y)
    x = tl.where(wraps_x, x - nw * MW, x)
    real = (t >= 0) & (t < MH * MW) & (y < H) & (x < W)
    segment = 2 * wraps_y.to(tl.int32) + wraps_x.to(tl.int32)
    return y * W + x, real, segment


@triton.jit
def window_tokens(t, window, H, W, shift_y, shift_x, MH, MW):
    """Return image, pixel in the image, whether it is real, and segment of tokens ``t``."""
    nw = tl.cdiv(W, MW)
    nh = tl.cdiv(H, MH)
    row = window // nw % nh
    pixel, real, segment = tokens_of(t, row, window % nw, H, W, nh, nw, shift_y, shift_x, MH, MW)
    return (window // (nh * nw)).to(tl.int64), pixel, real, segment


@triton.jit
def load_rows(ptr, pixel, real, stride, D: tl.constexpr, DP: tl.constexpr):
    """Load D channels of each token as a (tokens, DP) tile; zero where there is nothing."""
    d = tl.arange(0, DP)
    return tl.load(
        ptr + pixel[:, None] * stride + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0.0
    )


@triton.jit
def store_rows(
    ptr, x, pixel, real, stride,
    D: tl.constexpr, DP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Store a (tokens, DP) tile where ``load_rows`` reads it."""
    d = tl.arange(0, DP)
    mask = real[:, None] & (d < D)[None, :]
    x = narrow(x, ptr.dtype.element_ty, WIDE)
    tl.store(ptr + pixel[:, None] * stride + d[None, :], x, mask=mask)


@triton.jit
def narrow(x, dtype: tl.constexpr, WIDE: tl.constexpr):
    """Round a tile to a type. Triton's interpreter (``WIDE``) would cut bfloat16 off instead."""
    if WIDE and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        x = (bits >> 16 << 16).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def product(a, b, ACC: tl.constexpr, WIDE: tl.constexpr):
    """Matrix product of two tiles, summed in ACC; float32 operands are not cut to TF32.

    ``WIDE`` also multiplies in ACC: Triton's interpreter would multiply the codes of bfloat16.
    """
    if WIDE:
        a = a.to(ACC)
        b = b.to(ACC)
    return tl.dot(a, b, input_precision='ieee', out_dtype=ACC)


@triton.jit
def wide_product(a, b, ACC: tl.constexpr, WIDE: tl.constexpr):
    """Product of an unrounded tile with a rounded one: twice the work, the precision of ACC.

    Half precision takes ``a`` in two parts, the second of which is what the first one lost.
    """
    first = narrow(a, b.dtype, WIDE)
    out = product(first, b, ACC, WIDE)
    if b.dtype.primitive_bitwidth == 16:
        out += product(narrow(a - first.to(ACC), b.dtype, WIDE), b, ACC, WIDE)
    return out


@triton.jit
def split_inverse(x, inverse, ACC: tl.constexpr, WIDE: tl.constexpr):
    """Give rows of x a length in (0.5, 1] without rounding, and what is missing to 1.

    A power of two is all that x is multiplied with; the rest, a factor per row in [1, 2), goes
    into the other operand of a product.
    """
    if ACC == tl.float64:
        power = (inverse.to(tl.int64, bitcast=True) >> 52 << 52).to(tl.float64, bitcast=True)
    else:
        power = (inverse.to(tl.int32, bitcast=True) >> 23 << 23).to(tl.float32, bitcast=True)
    return narrow(x.to(ACC) * power[:, None], x.dtype, WIDE), inverse / power


@triton.jit
def inverse_norm(x, ACC: tl.constexpr):
    """1 / max(|row|, eps) of a (tokens, DP) tile."""
    wide = x.to(ACC)
    return 1.0 / tl.maximum(tl.sqrt(tl.sum(wide * wide, 1)), EPS)


@triton.jit
def table_index(t_q, t_k, MH, MW):
    """Index of the offset query minus key in a head's table; (BM,), (BN,) -> (BM, BN)."""
    # Tokens beyond the window read some entry that exists; it is masked later.
    t_q = tl.minimum(t_q, MH * MW - 1)
    t_k = tl.minimum(t_k, MH * MW - 1)
    row = 2 * MW - 1
    i = t_q // MW * row + t_q % MW + (MH - 1) * row + MW - 1
    j = t_k // MW * row + t_k % MW
    return i[:, None] - j[None, :]


@triton.jit
def tile_logits(
    q, k, unit_q, unit_k, bias, segment_q, segment_k, real_k,
    SHIFTED: tl.constexpr, ACC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Logits of a tile (equation 2) in ACC, and the cosine * scale that is part of them.

    ``unit_q`` is scale / |q|, ``unit_k`` is 1 / |k|.
    """
    cosines = product(q, tl.trans(k), ACC, WIDE) * unit_q[:, None] * unit_k[None, :]
    logits = cosines + bias
    if SHIFTED:
        logits += tl.where(segment_q[:, None] != segment_k[None, :], SEAM, 0.0)
    return tl.where(real_k[None, :], logits, NOTHING), cosines


@triton.jit(do_not_specialize=RUNTIME)
def forward_kernel(
    qkv, logit_scale, bias, out, lse,
    num_windows, per_program, H, W, shift_y, shift_x, MH, MW, HEADS,
    D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SHIFTED: tl.constexpr,
    SINGLE: tl.constexpr, ACC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write the output map and the log-sum-exp of each query.

    Grid: chunks of ``per_program`` windows x heads x tiles of BM queries, the last one fastest.
    """
    N = MH * MW
    C = HEADS * D
    TILES = tl.cdiv(N, BM)
    pid = tl.program_id(0)
    head = pid // TILES % HEADS
    first = pid // (TILES * HEADS) * per_program
    t_q = pid % TILES * BM + tl.arange(0, BM)
    bias += head * ((2 * MH - 1) * (2 * MW - 1))
    scale = tl.exp(tl.minimum(tl.load(logit_scale + head), MAX_LOG))
    if SINGLE:
        kept_bias = tl.load(bias + table_index(t_q, tl.arange(0, BN), MH, MW))

    for window in range(first, tl.minimum(first + per_program, num_windows)):
        image, pixel_q, real_q, segment_q = window_tokens(
            t_q, window, H, W, shift_y, shift_x, MH, MW
        )
        source = qkv + image * H * W * (3 * C) + head * D
        q = load_rows(source, pixel_q, real_q, 3 * C, D, DP)
        unit_q = inverse_norm(q, ACC) * scale
        largest = tl.full((BM,), NOTHING, ACC)
        total = tl.zeros((BM,), ACC)
        acc = tl.zeros((BM, DP), ACC)
        for start in range(0, N, BN):
            t_k = start + tl.arange(0, BN)
            _, pixel_k, real_k, segment_k = window_tokens(
                t_k, window, H, W, shift_y, shift_x, MH, MW
            )
            k = load_rows(source + C, pixel_k, real_k, 3 * C, D, DP)
            v = load_rows(source + 2 * C, pixel_k, real_k, 3 * C, D, DP)
            if SINGLE:
                tile_bias = kept_bias
            else:
                tile_bias = tl.load(bias + table_index(t_q, t_k, MH, MW))
            logits, _ = tile_logits(
                q, k, unit_q, inverse_norm(k, ACC), tile_bias, segment_q, segment_k, real_k,
                SHIFTED, ACC, WIDE,
            )  # fmt: skip
            larger = tl.maximum(largest, tl.max(logits, 1))
            shrink = tl.exp(largest - larger)
            weights = tl.exp(logits - larger[:, None])
            total = total * shrink + tl.sum(weights, 1)
            acc = acc * shrink[:, None]
            acc += product(narrow(weights, v.dtype, WIDE), v, ACC, WIDE)
            largest = larger
        target = out + image * H * W * C + head * D
        store_rows(target, acc / total[:, None], pixel_q, real_q, C, D, DP, WIDE)
        row = lse + (window * HEADS + head).to(tl.int64) * N
        tl.store(row + t_q, largest + tl.log(total), mask=t_q < N)
