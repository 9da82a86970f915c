"""Running a trained model over the pictures it is validated on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from swinv2_mm.data_check.guard import guarded_dataset
from swinv2_mm.engine.runner import CheckedRunner
from swinv2_mm.errors import UserError
from swinv2_mm.libraries import imported, library_of
from swinv2_mm.models.class_count import num_classes_of

from .findings import Findings


class Task(Protocol):
    """What gathers predictions: one class per task, all with these two methods."""

    def add(self, info: dict, sample: object) -> None:
        """Take what the data set knows about a picture, and the model's data sample."""

    def findings(self) -> Findings:
        """Sum up."""


def evaluate(cfg: Config, checkpoint: Path, *, num_images: int | None) -> Iterator[int]:
    """Run a model over its validation set, picture by picture.

    A generator, so that the caller can show how far it is: yields the number of pictures first,
    then counts them; its return value is ``(findings, classes, palette)``.

    Args:
        cfg: Of the training; changed.
        checkpoint: Its weights.
        num_images: How many pictures, spread evenly over the set; ``None`` is all.

    Raises:
        UserError: If the config has no validation set of a task that is known, or the weights
            do not fit.
    """
    library = library_of(cfg, purpose='report')
    if not cfg.get('val_dataloader'):
        raise UserError('a report needs a config with a val_dataloader')
    model = _model(cfg, checkpoint)
    dataset = guarded_dataset(cfg, 'val')
    number = len(dataset)
    if not number:
        raise UserError('the validation set of this config is empty')
    wanted = number if num_images is None else min(num_images, number)
    meta = dataset.metainfo
    if 'thing_classes' in meta:
        raise UserError('a report on panoptic segmentation is not supported')
    classes = [str(name) for name in meta.get('classes') or range(num_classes_of(model))]
    # Label maps are known by their colours; those of boxes are often too dark to see.
    palette = meta.get('palette') if library.has_label_maps else None
    task: Task = imported(library.report_task)(classes, palette=palette)
    yield wanted
    for count in range(wanted):
        at = count * number // wanted
        with torch.inference_mode():
            sample = model.test_step(pseudo_collate([dataset[at]]))[0]
        task.add(dataset.get_data_info(at), sample)
        yield count + 1
    return task.findings(), classes, palette


def _model(cfg: Config, checkpoint: Path) -> torch.nn.Module:
    # A Runner only to build and load: what belongs to a training is left out.
    cfg = copy.deepcopy(cfg)
    for part in ('train', 'val', 'test'):
        for key in (f'{part}_dataloader', f'{part}_cfg', f'{part}_evaluator'):
            cfg[key] = None
    for key in ('optim_wrapper', 'param_scheduler', 'custom_hooks', 'load_from', 'auto_scale_lr'):
        cfg[key] = None
    cfg.update(resume=False, launcher='none', log_level='WARNING', visualizer=None)
    # The weights follow: what the backbone started from is not needed, and may not be here.
    if (cfg.model.get('backbone') or {}).get('init_cfg'):
        cfg.model.backbone.init_cfg = None
    with TemporaryDirectory() as folder:
        cfg.work_dir = folder
        try:
            runner = CheckedRunner.from_cfg(cfg)
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, AssertionError) as error:
            raise UserError(f'the model of this config cannot be built: {error}') from error
        runner.load_checkpoint(str(checkpoint))
    return runner.model.eval()
