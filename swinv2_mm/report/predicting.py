"""Run a trained model over its validation set for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from tqdm import tqdm

from swinv2_mm.data_check.guard import guarded_dataset
from swinv2_mm.data_check.listing import evenly
from swinv2_mm.datasets.palette import Colour
from swinv2_mm.engine.trained_model import load_trained_model
from swinv2_mm.errors import UserError
from swinv2_mm.libraries import imported, library_of
from swinv2_mm.models.class_count import num_classes_of

from .findings import Findings


class Task(Protocol):
    """Protocol of the classes that collect predictions, one per task."""

    def add(self, info: dict, sample: object) -> None:
        """Add the annotations of an image and the model's data sample."""

    def findings(self) -> Findings:
        """Compute the findings."""


def evaluate(
    cfg: Config, checkpoint: str, *, num_images: int | None
) -> tuple[Findings, list[str], Sequence[Colour] | None]:
    """Run a model over its validation set, image by image, with a progress bar.

    Args:
        cfg: Config of the training; it is changed.
        checkpoint: Its weights.
        num_images: How many images, spread evenly over the set; ``None`` is all.

    Returns:
        The findings, the names of the classes, and their colours if the data set has any.

    Raises:
        UserError: If the config has no validation set of a task that is known, or the weights
            do not fit.
    """
    library = library_of(cfg, purpose='report')
    if not cfg.get('val_dataloader'):
        raise UserError('a report needs a config with a val_dataloader')
    model, meta = load_trained_model(cfg, checkpoint, device=get_device())
    if not num_classes_of(model):
        raise UserError(
            f'a report is of a model that tells classes apart, and {cfg.model.type} has none: of a '
            'pre-training, plot its curves with tools/analysis/plot.py'
        )
    dataset = guarded_dataset(cfg, 'val', trained_on=meta.get('classes') or ())
    number = len(dataset)
    if not number:
        raise UserError('the validation set of this config is empty')
    meta = dataset.metainfo
    if 'thing_classes' in meta:
        raise UserError('a report on panoptic segmentation is not supported')
    classes = [str(name) for name in meta.get('classes') or range(num_classes_of(model))]
    # Label maps are known by their colours; those of boxes are often too dark to see.
    colours = {'palette': meta.get('palette')} if library.has_label_maps else {}
    task: Task = imported(library.report_task)(classes, **colours)
    for at in tqdm(evenly(range(number), num_images), unit='image', disable=None):
        with torch.inference_mode(), DefaultScope.overwrite_default_scope(cfg.default_scope):
            sample = model.test_step(pseudo_collate([dataset[at]]))[0]
        task.add(dataset.get_data_info(at), sample)
    return task.findings(), classes, colours.get('palette')
