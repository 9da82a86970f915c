"""An official SimMIM checkpoint, by the names that its code gives, with random values.

The names are written down here from what the released program saves; nothing of ours makes them.
"""

import oracle
import torch

EMBED_DIM, DEPTHS, HEADS = 8, (2, 2, 2, 2), (1, 2, 4, 4)
WINDOWS = (4, 4, 4, 2)  # of images of 64 px: the last stage is 2 tokens wide
STRIDE = 32


def shapes() -> dict[str, tuple[int, ...]]:
    """Name to shape of everything in the file."""
    found = {
        'encoder.mask_token': (1, 1, EMBED_DIM),
        'encoder.patch_embed.proj.weight': (EMBED_DIM, 3, 4, 4),
        'encoder.patch_embed.proj.bias': (EMBED_DIM,),
        'encoder.patch_embed.norm.weight': (EMBED_DIM,),
        'encoder.patch_embed.norm.bias': (EMBED_DIM,),
    }
    for i, depth in enumerate(DEPTHS):
        dim, window = EMBED_DIM * 2**i, WINDOWS[i]
        for j in range(depth):
            block = f'encoder.layers.{i}.blocks.{j}'
            if j % 2 and i < 3:  # the last stage has one window, which is not shifted
                side = 64 // 4 // 2**i
                found[f'{block}.attn_mask'] = ((side // window) ** 2, window**2, window**2)
            found |= {
                f'{block}.norm1.weight': (dim,),
                f'{block}.norm1.bias': (dim,),
                f'{block}.attn.logit_scale': (HEADS[i], 1, 1),
                f'{block}.attn.q_bias': (dim,),
                f'{block}.attn.v_bias': (dim,),
                f'{block}.attn.relative_coords_table': (1, 2 * window - 1, 2 * window - 1, 2),
                f'{block}.attn.relative_position_index': (window**2, window**2),
                f'{block}.attn.cpb_mlp.0.weight': (512, 2),
                f'{block}.attn.cpb_mlp.0.bias': (512,),
                f'{block}.attn.cpb_mlp.2.weight': (HEADS[i], 512),
                f'{block}.attn.qkv.weight': (3 * dim, dim),
                f'{block}.attn.proj.weight': (dim, dim),
                f'{block}.attn.proj.bias': (dim,),
                f'{block}.norm2.weight': (dim,),
                f'{block}.norm2.bias': (dim,),
                f'{block}.mlp.fc1.weight': (4 * dim, dim),
                f'{block}.mlp.fc1.bias': (4 * dim,),
                f'{block}.mlp.fc2.weight': (dim, 4 * dim),
                f'{block}.mlp.fc2.bias': (dim,),
            }
        if i < len(DEPTHS) - 1:
            found |= {
                f'encoder.layers.{i}.downsample.reduction.weight': (2 * dim, 4 * dim),
                f'encoder.layers.{i}.downsample.norm.weight': (2 * dim,),
                f'encoder.layers.{i}.downsample.norm.bias': (2 * dim,),
            }
    last = EMBED_DIM * 2 ** (len(DEPTHS) - 1)
    return found | {
        'encoder.norm.weight': (last,),
        'encoder.norm.bias': (last,),
        'decoder.0.weight': (STRIDE**2 * 3, last, 1, 1),
        'decoder.0.bias': (STRIDE**2 * 3,),
    }


def weights() -> dict[str, torch.Tensor]:
    """Values in float64 at which a mistake shows; the official tables where they are read."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes().items():
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith('relative_coords_table'):
            value = coords_table(window=(shape[1] + 1) // 2)
        elif name.endswith('logit_scale'):
            value = torch.linspace(5.0, 0.5, shape[0], dtype=torch.float64).reshape(shape)
        elif name.endswith('cpb_mlp.0.weight'):
            value = 2 * value
        elif name.endswith('cpb_mlp.2.weight'):
            value = 0.1 * value
        elif 'norm' in name and name.endswith('weight'):
            value = 1 + 0.3 * value
        elif len(shape) > 1 and 'token' not in name:
            value = value / value[0].numel() ** 0.5
        found[name] = value
    return found


def coords_table(window: int) -> torch.Tensor:
    """The log-spaced coordinates of all offsets of a window."""
    line = [oracle.log_coordinate(offset, window) for offset in range(1 - window, window)]
    return torch.tensor([[[[y, x] for x in line] for y in line]], dtype=torch.float64)
