"""Write a config for a data set on top of a recipe: a leaf in which nothing stands twice."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swinv2_mm.errors import UserError

from .discovery import Layout, Split

# Full-size recipes; those for small data, below, train from scratch on a CPU.
RECIPES = {
    'detection': 'detection/cascade-mask-rcnn_swinv2-t-w16_fpn_1x_coco.py',
    'boxes': 'detection/dino-4scale_swinv2-t-w16_8xb2-12e_coco.py',
    'segmentation': 'segmentation/upernet_swinv2-t-w16_8xb2-160k_ade20k-512.py',
    'classification': 'classification/swinv2-t-w12_16xb64_ft_in1k-384.py',
}
SMALL_RECIPES = {
    'detection': 'detection/cascade-mask-rcnn_swinv2-nano-w12_facade.py',
    'boxes': 'detection/htc++-box_swinv2-nano-w12_facade.py',
    'segmentation': 'segmentation/upernet_swinv2-nano-w8_facade.py',
    'classification': 'classification/swinv2-nano-w8_flowers.py',
}
_SCOPES = {'detection': 'mmdet', 'segmentation': 'mmseg', 'classification': 'mmpretrain'}
# Heads with a number of classes of their own: stuff of HTC, things and stuff of Mask2Former.
_OTHER_HEADS = ('semantic_head', 'panoptic_head', 'panoptic_fusion_head')
# Training of a small set by a recipe that counts iterations, and the part of it that warms up.
_EPOCHS = 100
_LEAST_ITERATIONS = 2000
_WARM_UP_PART = 20


def leaf_text(task: str, layout: Layout, cfg: Config, *, recipe: str, name: str, root: str) -> str:
    """Return the text of a leaf.

    Args:
        task: ``detection``, ``segmentation`` or ``classification``.
        layout: The data.
        cfg: The recipe.
        recipe: Its name.
        name: Name of the file, for the header.
        root: Folder of the data, as the leaf should give it.

    Raises:
        UserError: If the recipe is of another task, or of a kind that needs more than ten lines.
    """
    if cfg.default_scope != _SCOPES[task]:
        raise UserError(f'recipe {recipe} is of {cfg.default_scope}, not for {task}')
    heads = _with_classes(cfg.model, '_base_.model')
    dataset = cfg.train_dataloader.dataset
    if heads is None or 'dataset' in dataset or 'datasets' in dataset:
        raise UserError(f'recipe {recipe}: its heads or data sets need more than a leaf of new')
    counts = f'{layout.train.num_images} + {layout.val.num_images} images'
    number = f'{len(layout.classes)} class{"es" if len(layout.classes) > 1 else ""}'
    scaled = ' --auto-scale-lr' if 'base_batch_size' in cfg.get('auto_scale_lr', {}) else ''
    lines = [
        f'# Trains: {Path(recipe).stem} on {Path(root).name}.',
        f'# Data: {counts}, {number}, {layout.description}.',
        f'# Command: swinv2-mm train {shlex.quote(name)}{scaled}',
        f"_base_ = __import__('swinv2_mm').recipe({recipe!r})",
        f'root, classes = {_quoted(root)}, {layout.classes!r}',
        *_WRITERS[task](layout, dataset),
        f'model = {heads}',
        *_pretrained(cfg),
        *_schedule(cfg, layout.train.num_images),
    ]
    return '\n'.join(lines) + '\n'


def _quoted(root: str) -> str:
    """Return a string literal; MMEngine may insert a folder into it that has an apostrophe."""
    return repr(root) if {'"', '\\'} & set(root) else f'"{root}"'


def _detection(layout: Layout, dataset: Mapping[str, Any]) -> list[str]:
    def loader(split: Split, file: str) -> str:
        prefix = f'{split.images}/' if split.images else ''
        return f'dict(dataset=dict(data, ann_file={file}, data_prefix=dict(img={prefix!r})))'

    return [
        f'train_file, val_file = {layout.train.labels!r}, {layout.val.labels!r}',
        'data = dict(data_root=root, metainfo=dict(classes=classes))',
        f'train_dataloader = {loader(layout.train, "train_file")}',
        f'val_dataloader = test_dataloader = {loader(layout.val, "val_file")}',
        "val_evaluator = test_evaluator = dict(ann_file=f'{root}/{val_file}', classwise=True)",
    ]


def _segmentation(layout: Layout, dataset: Mapping[str, Any]) -> list[str]:
    def loader(split: Split) -> str:
        prefix = f'dict(img_path={split.images!r}, seg_map_path={split.labels!r})'
        return f'dict(dataset=dict(data, data_prefix={prefix}))'

    images, maps = layout.suffixes
    return [
        "data = dict(type='BaseSegDataset', data_root=root, metainfo=dict(classes=classes, "
        f'palette=[]), img_suffix={images!r}, seg_map_suffix={maps!r})',
        f'train_dataloader = {loader(layout.train)}',
        f'val_dataloader = test_dataloader = {loader(layout.val)}',
    ]


def _classification(layout: Layout, dataset: Mapping[str, Any]) -> list[str]:
    def loader(split: Split, pipeline: str) -> str:
        return f'dict(dataset=dict(data, data_prefix={split.images!r}, pipeline={pipeline}))'

    return [
        "data = dict(_delete_=True, type='CustomDataset', data_root=root, "
        'metainfo=dict(classes=classes))',
        f'train_dataloader = {loader(layout.train, "_base_.train_pipeline")}',
        f'val_dataloader = test_dataloader = {loader(layout.val, "_base_.test_pipeline")}',
        'val_evaluator = test_evaluator = dict(topk=(1,))',
    ]


_WRITERS = {
    'detection': _detection,
    'segmentation': _segmentation,
    'classification': _classification,
}


def _with_classes(node: Mapping[str, Any], path: str) -> str | None:
    """Return source that sets every number of classes in a part of a model; ``None`` if none."""
    parts = []
    for key, value in node.items():
        if key == 'num_classes':
            parts.append('num_classes=len(classes)')
        elif key in _OTHER_HEADS:
            continue
        elif isinstance(value, Mapping):
            inner = _with_classes(value, f'{path}.{key}')
            parts += [f'{key}={inner}'] if inner else []
        elif isinstance(value, list) and any('num_classes' in item for item in _dicts(value)):
            one = 'dict(head, num_classes=len(classes))'
            parts.append(f'{key}=[{one} for head in {path}.{key}]')
    return f'dict({", ".join(parts)})' if parts else None


def _dicts(value: list) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)]


def _pretrained(cfg: Config) -> list[str]:
    """A whole model that a recipe starts from knows other classes."""
    return ["fresh_parameters = ['head']"] if cfg.get('load_from') else []


def steps_for(num_images: int, *, batch: int) -> int:
    """Return how many iterations train on a data set by a recipe that counts them."""
    return max(_LEAST_ITERATIONS, _EPOCHS * num_images // batch)


def _schedule(cfg: Config, num_images: int) -> list[str]:
    """Return what a recipe for more data needs so that its batches and rates fit."""
    loader, loop = cfg.train_dataloader, cfg.train_cfg
    lines = []
    if loader.get('drop_last') and num_images < loader.batch_size:
        lines.append(f'train_dataloader.update(batch_size={num_images})')
    batch = min(loader.batch_size, num_images)
    first = cfg.param_scheduler[0]
    if 'max_iters' in loop:
        steps = steps_for(num_images, batch=batch)
        if steps >= loop.max_iters:
            return lines
        second = cfg.param_scheduler[1]
        warm_up = f'steps // {_WARM_UP_PART}'
        span = f'begin={warm_up}, end=steps' + (f', T_max=steps - {warm_up}' * ('T_max' in second))
        return [
            *lines,
            f'steps = {steps}',
            'train_cfg = dict(max_iters=steps, val_interval=steps // 8)',
            'default_hooks = dict(checkpoint=dict(interval=steps // 8))',
            f'param_scheduler = [dict(_base_.param_scheduler[0], end={warm_up}), '
            f'dict(_base_.param_scheduler[1], {span})]',
        ]
    steps = loop.max_epochs * max(1, num_images // batch)
    if not first.get('by_epoch', True) and first.end > steps // 10:
        end = max(2, steps // _WARM_UP_PART)
        rest = '*_base_.param_scheduler[1:]'
        lines.append(f'param_scheduler = [dict(_base_.param_scheduler[0], end={end}), {rest}]')
    return lines
