"""Compute what ``definition`` defines, each in one pass over memory, in Triton.

Imported only when a kernel is launched: needs Triton. No kernel multiplies matrices; all sizes but
the channels of a head are known at run time only, so that a training meets a handful of binaries.

``B`` to ``shift_x`` are the geometry: images, map, windows per column and row, those of them in the
first run of rows and of columns (``kinds_of``: all other runs are one window wide), sides of a
window, shift.
"""

# ruff: noqa: ANN001, ANN201 - arguments of a kernel are pointers, tiles and scalars of the device.

from __future__ import annotations

import triton
import triton.language as tl

from ..triton.forward import EPS, MAX_LOG, SEAM, narrow, tokens_of

# As constants of a kernel: BIAS_OFFSET and MAX_EXPONENT. A test holds them against the originals.
OFFSET = tl.constexpr(8.0)
LARGEST_EXPONENT = tl.constexpr(60)

_GEOMETRY = ['B', 'H', 'W', 'nh', 'nw', 'rows', 'columns', 'MH', 'MW', 'shift_y', 'shift_x']
_OF_OPERANDS = [*_GEOMETRY, 'NP', 'heads']


@triton.jit
def window_place(window, B, nh, nw, rows, columns):
    """Return image, row and column of a window in the sorted order."""
    size = B * nw
    rest = window - size * rows
    row = tl.where(rest < 0, 0, rows + rest // size)
    window = tl.where(rest < 0, window, rest % size)
    height = tl.where(rest < 0, rows, 1)
    size = B * height
    rest = window - size * columns
    column = tl.where(rest < 0, 0, columns + rest // size)
    window = tl.where(rest < 0, window, rest % size)
    width = tl.where(rest < 0, columns, 1)
    image = window // (height * width)
    return image, row + window // width % height, column + window % width


@triton.jit
def power_of_two(largest):
    """Return the power of two that takes a magnitude to [0.5, 1)."""
    largest = tl.load(largest).to(tl.float32)
    exponent = ((largest.to(tl.int32, bitcast=True) >> 23) & 255) - 126
    exponent = tl.minimum(tl.maximum(exponent, -LARGEST_EXPONENT), LARGEST_EXPONENT)
    exponent = tl.where(largest == 0, 0, exponent)
    return ((127 - exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def addresses(row, channels, first, WIDTH: tl.constexpr):
    """Return where the channels from ``first`` on of each row are, in 64 bits: (rows, WIDTH)."""
    return row.to(tl.int64)[:, None] * channels + (first + tl.arange(0, WIDTH))[None, :]


@triton.jit
def norm_of(x):
    """Return max(|row|, eps) of a float32 tile."""
    return tl.maximum(tl.sqrt(tl.sum(x * x, 1)), EPS)


@triton.jit(do_not_specialize=_OF_OPERANDS)
def operands_kernel(
    qkv, logit_scale, largest, out,
    B, H, W, nh, nw, rows, columns, MH, MW, shift_y, shift_x, NP, heads,
    D: tl.constexpr, DP: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Write queries, keys and values. Grid: windows x blocks of BT tokens x heads."""
    blocks = tl.cdiv(NP, BT)
    pid = tl.program_id(0)
    head = pid % heads
    window = pid // (heads * blocks)
    image, row, column = window_place(window, B, nh, nw, rows, columns)
    start = image.to(tl.int64) * H * W
    t = pid // heads % blocks * BT + tl.arange(0, BT)
    pixel, real, _ = tokens_of(t, row, column, H, W, nh, nw, shift_y, shift_x, MH, MW)
    pixel_q, real_q, _ = tokens_of(
        MH * MW - 1 - t, row, column, H, W, nh, nw, shift_y, shift_x, MH, MW
    )
    channels = heads * D
    inside = (tl.arange(0, DP) < D)[None, :]
    first = head * D
    source = qkv + addresses(start + pixel, 3 * channels, first, DP)
    source_q = qkv + addresses(start + pixel_q, 3 * channels, first, DP)
    mask = real[:, None] & inside
    q = tl.load(source_q, mask=real_q[:, None] & inside, other=0.0).to(tl.float32)
    k = tl.load(source + channels, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(source + 2 * channels, mask=mask, other=0.0).to(tl.float32)
    scale = tl.exp(tl.minimum(tl.load(logit_scale + head), MAX_LOG))
    q = q / norm_of(q)[:, None] * scale
    k = k / norm_of(k)[:, None]
    v = v * power_of_two(largest)
    part = tl.num_programs(0) // (heads * blocks) * NP.to(tl.int64) * channels
    target = out + addresses(window * NP + t, channels, first, DP)
    mask = (t < NP)[:, None] & inside
    tl.store(target, q.to(out.dtype.element_ty), mask=mask)
    tl.store(target + part, k.to(out.dtype.element_ty), mask=mask)
    tl.store(target + 2 * part, v.to(out.dtype.element_ty), mask=mask)


@triton.jit
def through_norm(grad, x, scale):
    """Return the gradient of x from that of scale * x / |x|, and that of log(scale), by row."""
    # In the order of ``normalize_backward_``.
    factor = 1.0 / norm_of(x) * scale
    normalized = x * factor[:, None]
    along = tl.sum(normalized * grad, 1)
    grad -= normalized * (along / (scale * scale))[:, None]
    return grad * factor[:, None], along


@triton.jit(do_not_specialize=_OF_OPERANDS)
def operands_backward_kernel(
    d_q, d_k, d_v, qkv, logit_scale, largest, largest_d_out, d_qkv, d_scale,
    B, H, W, nh, nw, rows, columns, MH, MW, shift_y, shift_x, NP, heads,
    D: tl.constexpr, DP: tl.constexpr, BT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the map, and a program's part of that of log(scale).

    Grid: as ``operands_kernel``.
    """
    N = MH * MW
    blocks = tl.cdiv(NP, BT)
    pid = tl.program_id(0)
    head = pid % heads
    window = pid // (heads * blocks)
    image, row, column = window_place(window, B, nh, nw, rows, columns)
    start = image.to(tl.int64) * H * W
    t = pid // heads % blocks * BT + tl.arange(0, BT)
    pixel, real, _ = tokens_of(t, row, column, H, W, nh, nw, shift_y, shift_x, MH, MW)
    channels = heads * D
    first = head * D
    mask = real[:, None] & (tl.arange(0, DP) < D)[None, :]
    at = addresses(start + pixel, 3 * channels, first, DP)
    here = addresses(window * NP + t, channels, first, DP)
    here_q = addresses(window * NP + N - 1 - t, channels, first, DP)
    q = tl.load(qkv + at, mask=mask, other=0.0).to(tl.float32)
    k = tl.load(qkv + at + channels, mask=mask, other=0.0).to(tl.float32)
    power = power_of_two(largest)
    both = power * power_of_two(largest_d_out)
    to_q = tl.load(d_q + here_q, mask=mask, other=0.0).to(tl.float32) / both
    to_k = tl.load(d_k + here, mask=mask, other=0.0).to(tl.float32) / both
    to_v = tl.load(d_v + here, mask=mask, other=0.0).to(tl.float32) / both * power
    log_scale = tl.load(logit_scale + head)
    to_q, to_scale = through_norm(to_q, q, tl.exp(tl.minimum(log_scale, MAX_LOG)))
    to_k, _ = through_norm(to_k, k, tl.full((), 1.0, tl.float32))
    target = d_qkv + at
    dtype = d_qkv.dtype.element_ty
    tl.store(target, narrow(to_q, dtype, WIDE), mask=mask)
    tl.store(target + channels, narrow(to_k, dtype, WIDE), mask=mask)
    tl.store(target + 2 * channels, narrow(to_v, dtype, WIDE), mask=mask)
    tl.store(d_scale + pid, tl.sum(tl.where(log_scale <= MAX_LOG, to_scale, 0.0), 0))


@triton.jit(do_not_specialize=_OF_OPERANDS)
def rows_kernel(
    map, windows, largest,
    B, H, W, nh, nw, rows, columns, MH, MW, shift_y, shift_x, NP, heads,
    D: tl.constexpr, TO_MAP: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Move rows of a map to the queries of all windows, or back (``TO_MAP``).

    Grid: windows x blocks of BT tokens x blocks of BC channels.
    """
    # A compiler that knows a factor of it reads several channels at a time.
    channels = heads * D
    blocks = tl.cdiv(NP, BT)
    parts = tl.cdiv(channels, BC)
    pid = tl.program_id(0)
    first = pid % parts * BC
    window = pid // (parts * blocks)
    image, row, column = window_place(window, B, nh, nw, rows, columns)
    start = image.to(tl.int64) * H * W
    t = pid // parts % blocks * BT + tl.arange(0, BT)
    pixel, real, _ = tokens_of(MH * MW - 1 - t, row, column, H, W, nh, nw, shift_y, shift_x, MH, MW)
    at = addresses(start + pixel, channels, first, BC)
    here = addresses(window * NP + t, channels, first, BC)
    inside = (first + tl.arange(0, BC) < channels)[None, :]
    mask = real[:, None] & inside
    power = power_of_two(largest)
    if TO_MAP:
        x = tl.load(windows + here, mask=mask, other=0.0).to(tl.float32) / power
        tl.store(map + at, narrow(x, map.dtype.element_ty, WIDE), mask=mask)
    else:
        x = tl.load(map + at, mask=mask, other=0.0).to(tl.float32) * power
        tl.store(windows + here, x.to(windows.dtype.element_ty), mask=(t < NP)[:, None] & inside)


_OF_BIAS = ['stride_head', 'stride_offset', *_GEOMETRY, 'eighths', 'heads', 'first', 'column_runs']


@triton.jit(do_not_specialize=_OF_BIAS)
def bias_kernel(
    table, out, stride_head, stride_offset,
    B, H, W, nh, nw, rows, columns, MH, MW, shift_y, shift_x, eighths, heads, first, column_runs,
    BI: tl.constexpr, BJ: tl.constexpr,
):  # fmt: skip
    """Write the bias of kinds from ``first`` on. Grid: kinds x heads x tiles of BI x BJ."""
    N = MH * MW
    NP = eighths * 8
    tiles_i = tl.cdiv(NP, BI)
    tiles_j = tl.cdiv(NP, BJ)
    pid = tl.program_id(0)
    head = pid // (tiles_i * tiles_j) % heads
    local = pid // (tiles_i * tiles_j * heads)
    row_run = (first + local) // column_runs
    column_run = (first + local) % column_runs
    row = tl.where(row_run == 0, 0, rows + row_run - 1)
    column = tl.where(column_run == 0, 0, columns + column_run - 1)
    i = pid // tiles_j % tiles_i * BI + tl.arange(0, BI)
    j = pid % tiles_j * BJ + tl.arange(0, BJ)
    _, real_i, segment_i = tokens_of(N - 1 - i, row, column, H, W, nh, nw, shift_y, shift_x, MH, MW)
    _, real_j, segment_j = tokens_of(j, row, column, H, W, nh, nw, shift_y, shift_x, MH, MW)
    segment_i = tl.where(real_i, segment_i, -1)
    segment_j = tl.where(real_j, segment_j, -1)
    width = 2 * MW - 1
    offsets = (2 * MH - 1) * width
    index = (i // MW * width + i % MW)[:, None] + (j // MW * width + j % MW)[None, :]
    inside = (i < N)[:, None] & (j < N)[None, :]
    source = table + head * stride_head + (offsets - 1 - index) * stride_offset
    bias = tl.load(source, mask=inside, other=OFFSET) - OFFSET
    dtype = out.dtype.element_ty
    bias = bias.to(dtype)
    # Rounded in between, as where torch adds a mask to the bias.
    apart = inside & (segment_i[:, None] != segment_j[None, :])
    bias = tl.where(apart, (bias.to(tl.float32) + SEAM).to(dtype), bias)
    hidden = (real_i[:, None] & (segment_j == -1)[None, :]) | (j >= N)[None, :]
    bias = tl.where(hidden, float('-inf'), bias.to(tl.float32)).to(dtype)
    here = ((local * heads + head).to(tl.int64) * NP + i)[:, None] * NP + j[None, :]
    tl.store(out + here, bias, mask=(i < NP)[:, None] & (j < NP)[None, :])


@triton.jit(do_not_specialize=['num_windows', 'MH', 'MW', 'heads', 'share'])
def bias_backward_kernel(
    d_bias, largest, largest_d_out, out, stride_window, stride_head, stride_query,
    num_windows, MH, MW, heads, share,
    BI: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """Sum gradients of pairs by offset: BX offsets of one row of the table per program.

    Grid: parts of ``share`` windows x heads x rows of the table x blocks of BX columns.
    """
    width = 2 * MW - 1
    height = 2 * MH - 1
    blocks = tl.cdiv(width, BX)
    pid = tl.program_id(0)
    y = pid // blocks % height
    head = pid // (blocks * height) % heads
    part = pid // (blocks * height * heads)
    x = pid % blocks * BX + tl.arange(0, BX)
    total = tl.zeros((BI, BX), tl.float32)
    source = d_bias + (part * share).to(tl.int64) * stride_window + head.to(tl.int64) * stride_head
    for _ in range(part * share, tl.minimum((part + 1) * share, num_windows)):
        for query_y in range(tl.maximum(0, y - MH + 1), tl.minimum(y, MH - 1) + 1):
            for start in range(0, MW, BI):
                query_x = start + tl.arange(0, BI)
                key_x = x[None, :] - query_x[:, None]
                mask = (query_x < MW)[:, None] & (key_x >= 0) & (key_x < MW)
                query = (query_y * MW + query_x).to(tl.int64) * stride_query
                at = query[:, None] + (y - query_y) * MW + key_x
                total += tl.load(source + at, mask=mask, other=0.0).to(tl.float32)
        source += stride_window
    factor = power_of_two(largest) * power_of_two(largest_d_out)
    # The table has offsets query minus key: the reverse order.
    at = (part * heads + head) * (height * width) + (height - 1 - y) * width + width - 1 - x
    tl.store(out + at, tl.sum(total, 0) / factor, mask=x < width)
