"""SwinV2 written a second time, token by token, to hold the library against.

Written from the paper (arXiv 2111.09883) and the rules of its released code, in loops over single
tokens. It knows no partition, roll or mask: every query computes by coordinates which keys it
meets. Slow on purpose; meant for float64. Imports torch for autograd, and nothing of ours.

Parameters come as a mapping from their official names, relative to the part that is computed.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Params = Mapping[str, Tensor]
Size = tuple[int, int]


def below(params: Params, prefix: str) -> dict[str, Tensor]:
    """Keep the parameters under a prefix, and cut the prefix off."""
    return {name[len(prefix) :]: p for name, p in params.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Axis:
    """Windows along one axis: the map's length, the side, the shift, the padded length."""

    length: int
    side: int
    shift: int
    padded: int

    def meets(self, query: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (key, offset inside the window, seam crossed?) for the real keys of a token."""
        place = (query - self.shift) % self.padded
        first = place - place % self.side
        for other in range(first, first + self.side):
            key = (other + self.shift) % self.padded
            if key < self.length:
                # Two tokens lie on different sides of the seam if rolling has changed how far
                # they are apart.
                yield key, place - other, query - key != place - other


def lay_windows(length: int, *, window: int, shifted: bool, tiling: str) -> Axis:
    """Lay windows along an axis: clipped without a shift where one window covers it all."""
    if length <= window:
        return Axis(length, length, 0, length)
    side = window
    count = math.ceil(length / window)
    if tiling == 'balanced':
        fitting = [s for s in range(1, window + 1) if math.ceil(length / s) == count]
        side = min(fitting, key=lambda s: count * s - length)
    return Axis(length, side, side // 2 if shifted else 0, count * side)


def log_coordinate(offset: int, reference: int) -> float:
    """Log-spaced coordinate of an offset (equation 4, with the scale of the released code)."""
    scaled = 8.0 * offset / max(reference - 1, 1)
    return math.copysign(math.log2(1.0 + abs(scaled)) / math.log2(8.0), scaled)


def continuous_bias(params: Params, *, kind: str, reference: Size) -> Callable[[int, int], Tensor]:
    """Return the bias of an offset, per head, from the small network of section 3.3."""

    mlp = 'cpb_mlp' if kind == 'log_cpb' else 'linear_cpb_mlp'
    first, bias_1, second = (params[f'{mlp}.{x}'] for x in ('0.weight', '0.bias', '2.weight'))

    def bias(dy: int, dx: int) -> Tensor:
        if kind == 'log_cpb':
            place = [log_coordinate(dy, reference[0]), log_coordinate(dx, reference[1])]
        else:
            place = [dy / max(reference[0] - 1, 1), dx / max(reference[1] - 1, 1)]
        hidden = first[:, 0] * place[0] + first[:, 1] * place[1] + bias_1
        hidden = torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
        return 16.0 / (1.0 + torch.exp(-(second @ hidden)))

    return bias


def cubic_taps(index: int, *, source: int, target: int) -> list[tuple[int, float]]:
    """Return the four (index, weight) of bicubic resampling, borders repeated, a = -0.75."""
    centre = (index + 0.5) * source / target - 0.5
    taps = []
    for i in range(math.floor(centre) - 1, math.floor(centre) + 3):
        t = abs(centre - i)
        if t <= 1:
            weight = 1.25 * t**3 - 2.25 * t**2 + 1
        else:
            weight = -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        taps.append((min(max(i, 0), source - 1), weight))
    return taps


def table_bias(params: Params, *, window: Size, reference: Size) -> Callable[[int, int], Tensor]:
    """Return the bias of an offset, per head, from a learnt table, resampled if need be."""
    table = params['relative_position_bias_table']
    rows, columns = 2 * reference[0] - 1, 2 * reference[1] - 1

    def bias(dy: int, dx: int) -> Tensor:
        row, column = dy + window[0] - 1, dx + window[1] - 1
        if window == reference:
            return table[row * columns + column]
        vertical = cubic_taps(row, source=rows, target=2 * window[0] - 1)
        horizontal = cubic_taps(column, source=columns, target=2 * window[1] - 1)
        return sum(
            wy * wx * table[iy * columns + ix] for iy, wy in vertical for ix, wx in horizontal
        )

    return bias


def attend(
    qkv: Tensor, *, logit_scale: Tensor, bias: Callable[[int, int], Tensor], axes: tuple[Axis, Axis]
) -> Tensor:
    """Equation 2 for every token of a map: (B, H, W, 3C) -> (B, H, W, C)."""
    b, h, w, _ = qkv.shape
    num_heads = logit_scale.numel()
    # Token number = row * W + column.
    q, k, v = qkv.reshape(b, h * w, 3, num_heads, -1).unbind(2)
    q = q / q.square().sum(-1, keepdim=True).sqrt()
    k = k / k.square().sum(-1, keepdim=True).sqrt()
    largest = torch.full_like(logit_scale, math.log(100.0))
    scale = torch.exp(torch.where(logit_scale > largest, largest, logit_scale)).reshape(num_heads)

    known: dict[tuple[int, int], int] = {}
    values: list[Tensor] = []
    meetings = []
    for y in range(h):
        for x in range(w):
            keys, offsets, seam = [], [], []
            for ky, dy, seam_y in axes[0].meets(y):
                for kx, dx, seam_x in axes[1].meets(x):
                    if (dy, dx) not in known:
                        known[dy, dx] = len(values)
                        values.append(bias(dy, dx))
                    keys.append(ky * w + kx)
                    offsets.append(known[dy, dx])
                    seam.append(-100.0 if seam_y or seam_x else 0.0)
            meetings.append((keys, offsets, seam))

    biases = torch.stack(values)
    out = []
    for token, (keys, offsets, seam) in enumerate(meetings):
        cosines = (q[:, token, None] * k[:, keys]).sum(-1)
        logits = cosines * scale + biases[offsets] + qkv.new_tensor(seam)[:, None]
        powers = torch.exp(logits - logits.amax(1, keepdim=True))
        weights = powers / powers.sum(1, keepdim=True)
        out.append((weights[..., None] * v[:, keys]).sum(1))
    return torch.stack(out, dim=1).reshape(b, h, w, -1)


def attention(
    x: Tensor,
    params: Params,
    *,
    window: Size,
    reference: Size,
    shifted: bool,
    tiling: str = 'fixed',
    kind: str = 'log_cpb',
) -> Tensor:
    """The attention branch of a block: (B, H, W, C) -> (B, H, W, C)."""
    c = x.shape[-1]
    weight = params['qkv.weight']
    q = x @ weight[:c].t() + params['q_bias']
    k = x @ weight[c : 2 * c].t()
    v = x @ weight[2 * c :].t() + params['v_bias']
    if kind == 'table':
        bias = table_bias(params, window=window, reference=reference)
    else:
        bias = continuous_bias(params, kind=kind, reference=reference)
    axes = tuple(
        lay_windows(x.shape[1 + i], window=window[i], shifted=shifted, tiling=tiling)
        for i in (0, 1)
    )
    qkv = torch.cat([q, k, v], dim=-1)
    out = attend(qkv, logit_scale=params['logit_scale'], bias=bias, axes=axes)
    return out @ params['proj.weight'].t() + params['proj.bias']


def layer_norm(x: Tensor, params: Params) -> Tensor:
    """Normalise the last axis, then scale and shift it."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * params['weight'] + params['bias']


def mlp(x: Tensor, params: Params) -> Tensor:
    """Linear, GELU by its definition, Linear."""
    hidden = x @ params['fc1.weight'].t() + params['fc1.bias']
    hidden = hidden * 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))
    return hidden @ params['fc2.weight'].t() + params['fc2.bias']


def block(x: Tensor, params: Params, **attention_settings: object) -> Tensor:
    """Res-post-norm (figure 1), and the extra norm of the two largest sizes if it is there."""
    branch = attention(x, below(params, 'attn.'), **attention_settings)
    x = x + layer_norm(branch, below(params, 'norm1.'))
    x = x + layer_norm(mlp(x, below(params, 'mlp.')), below(params, 'norm2.'))
    extra = below(params, 'norm3.')
    return layer_norm(x, extra) if extra else x


def patch_merging(x: Tensor, params: Params) -> Tensor:
    """Join 2x2 tokens; a token outside the map is zero."""
    b, h, w, c = x.shape
    rows = []
    for y in range(0, h, 2):
        row = []
        for left in range(0, w, 2):
            four = []
            for dy, dx in ((0, 0), (1, 0), (0, 1), (1, 1)):
                inside = y + dy < h and left + dx < w
                four.append(x[:, y + dy, left + dx] if inside else x.new_zeros(b, c))
            row.append(torch.cat(four, dim=-1) @ params['reduction.weight'].t())
        rows.append(torch.stack(row, dim=1))
    return layer_norm(torch.stack(rows, dim=1), below(params, 'norm.'))


def patch_embedding(image: Tensor, params: Params) -> Tensor:
    """Embed p x p pixels as a token; a pixel outside the image is zero."""
    weight, p = params['proj.weight'], params['proj.weight'].shape[-1]
    height, width = image.shape[2:]
    rows = []
    for top in range(0, height, p):
        row = []
        for left in range(0, width, p):
            token = params['proj.bias']
            for y in range(top, min(top + p, height)):
                for x in range(left, min(left + p, width)):
                    token = token + image[:, :, y, x] @ weight[:, :, y - top, x - left].t()
            row.append(token)
        rows.append(torch.stack(row, dim=1))
    return layer_norm(torch.stack(rows, dim=1), below(params, 'norm.'))


def backbone(
    image: Tensor,
    params: Params,
    *,
    depths: tuple[int, ...],
    windows: tuple[Size, ...],
    references: tuple[Size, ...],
    out_indices: tuple[int, ...],
    tiling: str = 'fixed',
    kind: str = 'log_cpb',
) -> list[Tensor]:
    """The whole model: (B, channels, height, width) -> one (B, C, H, W) per chosen stage."""
    x = patch_embedding(image, below(params, 'patch_embed.'))
    outs = []
    for i, depth in enumerate(depths):
        for j in range(depth):
            settings = {'window': windows[i], 'reference': references[i], 'shifted': j % 2 == 1}
            names = below(params, f'layers.{i}.blocks.{j}.')
            x = block(x, names, tiling=tiling, kind=kind, **settings)
        if i in out_indices:
            outs.append(layer_norm(x, below(params, f'norm{i}.')).permute(0, 3, 1, 2))
        if i < len(depths) - 1:
            x = patch_merging(x, below(params, f'layers.{i}.downsample.'))
    return outs


def randomise(module: torch.nn.Module, *, seed: int) -> None:
    """Give every parameter a value at which a mistake in its use shows.

    Fresh weights hide mistakes: norms are zero, all scales are equal, the bias is nearly flat.
    """

    def normal(name: str, p: Tensor) -> Tensor:
        # By name, so that a model with more or fewer parts holds the same values.
        generator = torch.Generator().manual_seed(zlib.crc32(f'{seed} {name}'.encode()))
        return torch.randn(p.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith('logit_scale'):
                # From gentle to above the bound ln 100; the first head is always above.
                value = torch.linspace(5.0, 0.5, p.numel()).reshape(p.shape)
            elif name.endswith('cpb_mlp.0.weight'):
                value = 2.0 * normal(name, p)
            elif name.endswith('cpb_mlp.2.weight'):
                value = 0.1 * normal(name, p)
            elif name.endswith('relative_position_bias_table'):
                value = 2.0 * normal(name, p)
            elif p.ndim > 1:
                value = normal(name, p) / math.sqrt(p[0].numel())
            else:
                value = 0.3 * normal(name, p) + (
                    1.0 if 'norm' in name and 'weight' in name else 0.0
                )
            p.copy_(value)
