"""Write the tables of ``docs/model_zoo.md`` and ``docs/recipes.md`` from what they are about.

Released models come from ``swinv2_mm.checkpoint.zoo``, recipes from their configs and from
``configs/*/metafile.yml``. Memory, which takes minutes to estimate, is kept from the page unless
``--memory`` is given.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from mmengine.utils import track_iter_progress

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from dev.made_parts import with_made_parts
from swinv2_mm.analysis.input_size import input_size_px
from swinv2_mm.analysis.memory_plan import estimate_plan, plans
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.checkpoint import RELEASED
from swinv2_mm.checkpoint.zoo import ReleasedModel
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.file import load_config
from swinv2_mm.core import ARCHITECTURES, SwinTransformerV2
from swinv2_mm.data_check.leaf import steps_for

ROOT = Path(__file__).resolve().parents[1]
ZOO, RECIPES = (ROOT / 'docs' / f'{name}.md' for name in ('model_zoo', 'recipes'))
# One per task and size; the page says in which order to look.
CHOSEN = (
    'classification/swinv2-nano-w8_flowers',
    'classification/swinv2-t-w12_16xb64_ft_in1k-384',
    'classification/swinv2-b-w24_16xb64_in21k-pre_in1k-384',
    'classification/swinv2-l-w24_16xb64_in21k-pre_in1k-384',
    'segmentation/upernet_swinv2-nano-w8_facade',
    'segmentation/upernet_swinv2-t-w16_8xb2-160k_ade20k-512',
    'segmentation/upernet_swinv2-b-w16_8xb2-160k_ade20k-512',
    'segmentation/mask2former_swinv2-l-w16_8xb2-160k_ade20k-640',
    'detection/cascade-mask-rcnn_swinv2-nano-w12_facade',
    'detection/mask-rcnn_swinv2-t-w16_fpn_1x_coco',
    'detection/cascade-mask-rcnn_swinv2-t-w16_fpn_1x_coco',
    'detection/cascade-mask-rcnn_swinv2-b-w16_fpn_ms-3x_coco',
    'detection/dino-4scale_swinv2-t-w16_8xb2-12e_coco',
    'detection/dino-4scale_swinv2-l-w16_8xb2-36e_coco',
)
# Training images, those of COCO that have an annotation.
_NUM_IMAGES = {'COCO': 117_266, 'ImageNet-1k': 1_281_167, 'flowers': 600, 'facade': 200}
# A step is a forward pass and a backward pass of twice its cost; a multiply-accumulate is two.
_FLOPS_PER_MAC = 6
# What a card computes in bf16 in practice: an assumption, a sixth of the peak of an A100.
ASSUMED_FLOPS = 50e12
_OWN_IMAGES = 1000
_GIB = 2**30


def sizes_table() -> list[str]:
    """Return the table of architectures."""
    lines = [
        '| `arch` | channels of the stages | blocks | heads | parameters |',
        '|---|---|---|---|---|',
    ]
    for name, arch in ARCHITECTURES.items():
        with torch.device('meta'):
            model = SwinTransformerV2(name, out_indices=(3,))
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        cells = (', '.join(map(str, cell)) for cell in (arch.dims, arch.depths, arch.num_heads))
        lines.append(f'| `{name}` | {" | ".join(cells)} | {millions:,.1f} M |')
    return lines


def _source(model: ReleasedModel) -> str:
    return f'[{model.file_name}.pth]({model.url})'


def released_table() -> list[str]:
    """Return the table of the models that were trained with labels."""
    lines = [
        '| name | image | window | of the bias networks | classes | top-1 | in timm | file |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for model in RELEASED.values():
        if 'simmim' in model.name:
            continue
        trained_at = ', '.join(str(size[0]) for size in model.pretrained_window_sizes)
        cells = (
            f'`{model.name}`',
            f'{model.image_size_px} px',
            str(model.window_size),
            trained_at,
            f'{model.num_classes:,}',
            '' if model.top1 is None else str(model.top1),
            f'`{model.timm_name}`',
            _source(model),
        )
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def simmim_table() -> list[str]:
    """Return the table of the SimMIM family: a pre-trained model and its fine-tuned one a row."""
    lines = [
        '| pre-trained, 192 px, window 12 | fine-tuned, 224 px, window 14 | top-1 | files |',
        '|---|---|---|---|',
    ]
    family = [model for model in RELEASED.values() if 'simmim' in model.name]
    for pretrained, tuned in zip(family[::2], family[1::2], strict=True):
        files = f'[pre-trained]({pretrained.url}), [fine-tuned]({tuned.url})'
        lines.append(f'| `{pretrained.name}` | `{tuned.name}` | {tuned.top1} | {files} |')
    return lines


def _score(entry: Mapping) -> str:
    found = []
    for result in entry.get('Results', ()):
        who = result['Source'].partition(':')[0]
        name, value = next(iter(result['Metrics'].items()))
        found.append(f'{value:g} {name}, {who}')
    return '; '.join(found) or 'not measured'


def _hours(num_images: float, macs: int) -> str:
    hours = num_images * macs * _FLOPS_PER_MAC / ASSUMED_FLOPS / 3600
    if hours < 0.1:
        return 'under 0.1'
    return f'{hours:.1f}' if hours < 10 else f'{hours:,.0f}'


def _images_seen(cfg: Config, data: str) -> int:
    loop = cfg.train_cfg
    if 'max_iters' in loop:
        base = cfg.get('auto_scale_lr', {}).get('base_batch_size')
        return loop.max_iters * (base or cfg.train_dataloader.batch_size)
    return loop.max_epochs * next(n for name, n in _NUM_IMAGES.items() if name in data)


def recipes_table(memory_of: Mapping[str, str]) -> list[str]:
    """Return the table of recipes.

    Args:
        memory_of: Text for the column of memory, by recipe.
    """
    lines = [
        '| recipe | made for | GFLOPs an image | memory, GiB | hours, its own data | hours, '
        f'{_OWN_IMAGES:,} images by `new` | score |',
        '|---|---|---|---|---|---|---|',
    ]
    entries = {
        entry['Config'].removeprefix('configs/').removesuffix('.py'): entry
        for path in ROOT.glob('configs/*/metafile.yml')
        for entry in yaml.safe_load(path.read_text())['Models']
    }
    for name in CHOSEN:
        entry, cfg = entries[name], load_config(str(ROOT / f'configs/{name}.py'))
        data, macs = entry['Metadata']['Training Data'], entry['Metadata']['FLOPs']
        batch, loop = cfg.train_dataloader.batch_size, cfg.train_cfg
        if 'max_iters' in loop:
            own = min(steps_for(_OWN_IMAGES, batch=batch), loop.max_iters) * batch
        else:
            own = loop.max_epochs * _OWN_IMAGES
        cells = (
            f'`{name}.py`',
            data,
            f'{macs / 1e9:,.0f}' if macs > 1e10 else f'{macs / 1e9:.1f}',
            memory_of[name],
            _hours(_images_seen(cfg, data), macs),
            _hours(own, macs),
            _score(entry),
        )
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def estimated_memory(name: str) -> str:
    """Return what a card needs for a recipe as it is, with the images that it gives each."""
    cfg = load_config(str(ROOT / f'configs/{name}.py'))
    batch = cfg.train_dataloader.batch_size
    plan = next(plans(cfg, batch=batch))
    peak = estimate_plan(cfg, plan, size_px=input_size_px(cfg)).training
    return f'{peak / _GIB:.1f} for {batch}'


def kept_memory() -> dict[str, str]:
    """Return the column of memory as the page has it."""
    rows = re.findall(r'^\| `(\S+)\.py` \|[^|]*\|[^|]*\| ([^|]*) \|', RECIPES.read_text(), re.M)
    return dict(rows)


def pages(memory_of: Mapping[str, str]) -> dict[Path, str]:
    """Return the text of each page with fresh tables."""
    zoo = {'sizes': sizes_table(), 'released': released_table(), 'simmim': simmim_table()}
    return {
        ZOO: with_made_parts(ZOO.read_text(), zoo),
        RECIPES: with_made_parts(RECIPES.read_text(), {'recipes': recipes_table(memory_of)}),
    }


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--memory',
        nargs='*',
        metavar='RECIPE',
        help='estimate memory again (minutes); default of all',
    )
    args = parser.parse_args()
    memory_of = dict.fromkeys(CHOSEN, 'not estimated') | kept_memory()
    if args.memory is not None:
        for name in track_iter_progress(args.memory or list(CHOSEN)):
            memory_of[name] = estimated_memory(name)
            _write(memory_of)
    _write(memory_of)


def _write(memory_of: Mapping[str, str]) -> None:
    for path, text in pages(memory_of).items():
        atomic_write(path, text)


if __name__ == '__main__':
    run_tool(main)
