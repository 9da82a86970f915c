"""Derive the config of each cell of the study from one config file."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.config import Config

from swinv2_mm.config.file import load_config
from swinv2_mm.core.architectures import resolve_architecture
from swinv2_mm.datasets.image_files import IMAGE_SUFFIXES
from swinv2_mm.errors import UserError

from .plan import Cell, Study

# Share of the training in which the learning rate rises.
_WARM_UP_RATE = 0.1
_NUM_CHECKPOINTS = 10

_FLAG_OF_OPTION = {
    'model.backbone.arch': '--arch',
    'model.backbone.position_bias': '--biases',
    'model.backbone.pretrained_window_sizes': '--pairs',
    'model.backbone.window_size': '--pairs',
    'model.head.in_channels': '--arch',
    'optim_wrapper.optimizer.lr': '--lr',
    'param_scheduler': '--epochs and --lr',
    'randomness': '--seeds',
    'train_cfg': '--epochs',
    'train_dataloader.batch_size': '--batch-size',
    'train_dataloader.dataset': '--data-root, --pairs, --min-crop and --no-flip',
    'test_dataloader.dataset': '--data-root, --pairs and --test-crop',
    'load_from': '--work-dir',
    'resume': '--work-dir',
    'work_dir': '--work-dir',
}


def base_config(path: Path, *, study: Study) -> Config:
    """Read the config that all cells vary.

    Raises:
        UserError: If an option does not fit, or is what a flag of the study sets.
    """
    for option in study.cfg_options:
        key = option.partition('=')[0].lstrip('+')
        for owned, flag in _FLAG_OF_OPTION.items():
            if f'{key}.'.startswith(f'{owned}.') or f'{owned}.'.startswith(f'{key}.'):
                raise UserError(f'--cfg-options: {key} is set by {flag}')
    arch = () if study.arch == 'nano' else (f'model.backbone.arch={study.arch}',)
    cfg = load_config(str(path), [*arch, *study.cfg_options])
    try:
        resolve_architecture(cfg.model.backbone.arch)
    except ValueError as error:
        raise UserError(f'--arch: {error}') from error
    return cfg


def _cell_config(cell: Cell, *, study: Study, base: Config, num_workers: int) -> Config:
    """Return the config of a cell, for training and testing alike."""
    cfg = copy.deepcopy(base)
    arch = resolve_architecture(cfg.model.backbone.arch)
    num_stages = len(arch.depths)
    cfg.model.backbone.update(
        position_bias=cell.bias,
        window_size=cell.pair.stage_windows(num_stages),
        # Said, not found: the Runner compares a table's shape with the model before it loads.
        pretrained_window_sizes=study.pairs[0].stage_windows(num_stages),
        out_indices=(num_stages - 1,),
    )
    cfg.model.head.update(in_channels=arch.dims[-1], num_classes=len(study.images.classes))
    cfg.model.data_preprocessor.num_classes = len(study.images.classes)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.num_workers = num_workers
        loader.dataset.update(data_root=str(study.images.root), extensions=IMAGE_SUFFIXES)
    side = cell.pair.resolution_px
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'RandomResizedCrop':
            step.update(scale=side, crop_ratio_range=(study.min_crop_rate, 1.0))
        elif step.type == 'RandomFlip' and not study.with_flip:
            step.prob = 0.0
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'ResizeEdge':
            step.scale = round(side / study.test_crop_rate)
        elif step.type == 'CenterCrop':
            step.crop_size = side
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.randomness = dict(seed=cell.seed)
    return cfg


def training_config(cell: Cell, *, study: Study, base: Config, num_workers: int) -> Config:
    """Return the config of a cell's training or fine-tuning."""
    cfg = _cell_config(cell, study=study, base=base, num_workers=num_workers)
    epochs = study.fine_tune_epochs if cell.kind == 'tune' else study.epochs
    num_iterations = study.iterations(cell)
    warm_up = max(1, round(_WARM_UP_RATE * num_iterations))
    cfg.train_dataloader.batch_size = study.batch_size
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.optim_wrapper.optimizer.lr = study.fine_tune_lr if cell.kind == 'tune' else study.lr
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warm_up)
    ]
    if num_iterations > warm_up:
        cosine = dict(
            type='CosineAnnealingLR',
            by_epoch=False,
            begin=warm_up,
            end=num_iterations,
            T_max=num_iterations - warm_up,
            eta_min_ratio=0.01,
        )
        cfg.param_scheduler.append(cosine)
    cfg.default_hooks.checkpoint.interval = max(1, epochs // _NUM_CHECKPOINTS)
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    return cfg


def testing_config(cell: Cell, *, study: Study, base: Config, num_workers: int) -> Config:
    """Return the config of a cell's test."""
    cfg = _cell_config(cell, study=study, base=base, num_workers=num_workers)
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.visualizer.vis_backends = []
    return cfg
