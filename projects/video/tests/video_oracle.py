"""Video-SwinV2 written a second time, token by token, to hold ``swinv2_video`` against.

As ``tests/oracle.py``, of which it takes what does not depend on the number of axes: loops over
single tokens, no partition, roll or mask, nothing of ours imported.
"""

import math
from itertools import product

import torch
from oracle import Axis, Params, below, lay_windows, layer_norm, log_coordinate, mlp
from torch import Tensor

Volume = tuple[int, int, int]


def bias_of(offset: Volume, params: Params, *, kind: str, reference: Volume) -> Tensor:
    """The bias per head of an offset (time, vertical, horizontal), query minus key."""
    place = [
        log_coordinate(step, side) if kind == 'log_cpb' else step / max(side - 1, 1)
        for step, side in zip(offset, reference, strict=True)
    ]
    mlp_name = 'cpb_mlp' if kind == 'log_cpb' else 'linear_cpb_mlp'
    first, bias, second = (params[f'{mlp_name}.{x}'] for x in ('0.weight', '0.bias', '2.weight'))
    hidden = sum(first[:, axis] * place[axis] for axis in range(3)) + bias
    hidden = torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
    return 16.0 / (1.0 + torch.exp(-(second @ hidden)))


def attention(
    x: Tensor,
    params: Params,
    *,
    window: Volume,
    reference: Volume,
    shifted: bool,
    tiling: str = 'fixed',
    kind: str = 'log_cpb',
) -> Tensor:
    """The attention branch of a block: (B, T, H, W, C) -> (B, T, H, W, C)."""
    size, c = x.shape[1:4], x.shape[-1]
    heads = params['logit_scale'].numel()
    weight = params['qkv.weight']
    q = (x @ weight[:c].t() + params['q_bias']).unflatten(-1, (heads, -1))
    k = (x @ weight[c : 2 * c].t()).unflatten(-1, (heads, -1))
    v = (x @ weight[2 * c :].t() + params['v_bias']).unflatten(-1, (heads, -1))
    q = q / q.square().sum(-1, keepdim=True).sqrt()
    k = k / k.square().sum(-1, keepdim=True).sqrt()
    scale = torch.exp(params['logit_scale'].reshape(heads).clamp(max=math.log(100.0)))
    axes: list[Axis] = [
        lay_windows(size[i], window=window[i], shifted=shifted, tiling=tiling) for i in range(3)
    ]
    known: dict[Volume, Tensor] = {}
    out = torch.zeros_like(v)
    for query in product(*map(range, size)):
        logits, values = [], []
        for met in product(*(axis.meets(at) for axis, at in zip(axes, query, strict=True))):
            key = tuple(m[0] for m in met)
            offset = tuple(m[1] for m in met)
            if offset not in known:
                known[offset] = bias_of(offset, params, kind=kind, reference=reference)
            cosine = (q[(slice(None), *query)] * k[(slice(None), *key)]).sum(-1)
            seam = -100.0 if any(m[2] for m in met) else 0.0
            logits.append(cosine * scale + known[offset] + seam)
            values.append(v[(slice(None), *key)])
        stacked = torch.stack(logits)
        powers = torch.exp(stacked - stacked.amax(0))
        weights = powers / powers.sum(0)
        out = out.clone()
        out[(slice(None), *query)] = (weights[..., None] * torch.stack(values)).sum(0)
    return out.flatten(-2) @ params['proj.weight'].t() + params['proj.bias']


def block(x: Tensor, params: Params, **settings: object) -> Tensor:
    """Res-post-norm (figure 1)."""
    branch = attention(x, below(params, 'attn.'), **settings)
    x = x + layer_norm(branch, below(params, 'norm1.'))
    return x + layer_norm(mlp(x, below(params, 'mlp.')), below(params, 'norm2.'))


def tubelet_embedding(video: Tensor, params: Params) -> Tensor:
    """Embed t x p x p pixels; a pixel outside a frame is zero, the last frame goes on."""
    weight = params['proj.weight']
    depth, p = weight.shape[2:4]
    frames, height, width = video.shape[2:]
    slices = []
    for start in range(0, frames, depth):
        rows = []
        for top in range(0, height, p):
            row = []
            for left in range(0, width, p):
                token = params['proj.bias']
                for t, y, x in product(range(depth), range(p), range(p)):
                    if top + y < height and left + x < width:
                        pixel = video[:, :, min(start + t, frames - 1), top + y, left + x]
                        token = token + pixel @ weight[:, :, t, y, x].t()
                row.append(token)
            rows.append(torch.stack(row, dim=1))
        slices.append(torch.stack(rows, dim=1))
    return layer_norm(torch.stack(slices, dim=1), below(params, 'norm.'))


def patch_merging(x: Tensor, params: Params) -> Tensor:
    """Join 2x2 tokens of a frame; a token outside the map is zero."""
    b, frames, h, w, c = x.shape
    out = []
    for t, y, left in product(range(frames), range(0, h, 2), range(0, w, 2)):
        four = []
        for dy, dx in ((0, 0), (1, 0), (0, 1), (1, 1)):
            inside = y + dy < h and left + dx < w
            four.append(x[:, t, y + dy, left + dx] if inside else x.new_zeros(b, c))
        out.append(torch.cat(four, dim=-1) @ params['reduction.weight'].t())
    stacked = torch.stack(out, dim=1).reshape(b, frames, -(-h // 2), -(-w // 2), 2 * c)
    return layer_norm(stacked, below(params, 'norm.'))


def backbone(
    video: Tensor, params: Params, *, depths: tuple[int, ...], windows: tuple, references: tuple
) -> Tensor:
    """The last map of the whole model: (B, channels, frames, height, width) -> (B, C, T, H, W)."""
    x = tubelet_embedding(video, below(params, 'patch_embed.'))
    for i, depth in enumerate(depths):
        for j in range(depth):
            settings = {'window': windows[i], 'reference': references[i], 'shifted': j % 2 == 1}
            x = block(x, below(params, f'layers.{i}.blocks.{j}.'), **settings)
        if i < len(depths) - 1:
            x = patch_merging(x, below(params, f'layers.{i}.downsample.'))
    last = len(depths) - 1
    return layer_norm(x, below(params, f'norm{last}.')).permute(0, 4, 1, 2, 3)
