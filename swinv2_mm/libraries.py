"""Describe each OpenMMLab library in one table; another library is one entry.

Classes and modules are dotted names, so that no library is imported for another, or for the table.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swinv2_mm.errors import UserError


@dataclass(frozen=True)
class Library:
    """A library whose models can have a SwinV2 backbone.

    Attributes:
        scope: Its name, as ``default_scope`` of a config.
        task: What its models do.
        upstream: What pip installs for the package that its forks follow.
        drawing_hook: Hook that draws predictions on test images, with the switch that it needs.
        drawing_folder: Argument of that hook for the folder; without one it is the visualizer's.
        tta_merging: Module that merges the predictions for the views of an image.
        report_task: Class that gathers what a report says.
        has_label_maps: Whether its predictions are label maps, known by the colours of a data set.
        exported_whole: Class of models that are exported whole, with the name of what they are.
    """

    scope: str
    task: str
    upstream: str
    drawing_hook: Mapping[str, Any]
    drawing_folder: str | None
    tta_merging: str
    report_task: str
    has_label_maps: bool = False
    exported_whole: Mapping[str, str] = field(default_factory=dict)


_ALL = (
    Library(
        scope='mmdet',
        task='detection',
        upstream='mmdet',
        drawing_hook={'type': 'DetVisualizationHook', 'draw': True},
        drawing_folder='test_out_dir',
        tta_merging='swinv2_mm.tta.detections',
        report_task='swinv2_mm.report.detection:DetectionTask',
        exported_whole={
            'FasterRCNN': 'two-stage',
            'MaskRCNN': 'two-stage',
            'CascadeRCNN': 'two-stage',
            'RetinaNet': 'one-stage',
            'ATSS': 'one-stage',
            'DINO': 'dino',
            'Mask2Former': 'mask2former',
        },
    ),
    Library(
        scope='mmseg',
        task='segmentation',
        upstream='mmsegmentation ftfy regex',
        drawing_hook={'type': 'SegVisualizationHook', 'draw': True, 'interval': 1},
        drawing_folder=None,
        tta_merging='swinv2_mm.tta.label_maps',
        report_task='swinv2_mm.report.segmentation:SegmentationTask',
        has_label_maps=True,
        exported_whole={'EncoderDecoder': 'segmentor'},
    ),
    Library(
        scope='mmpretrain',
        task='classification',
        upstream='mmpretrain',
        drawing_hook={'type': 'VisualizationHook', 'enable': True, 'interval': 1},
        drawing_folder='out_dir',
        tta_merging='swinv2_mm.tta.class_scores',
        report_task='swinv2_mm.report.classification:ClassificationTask',
        exported_whole={'ImageClassifier': 'classifier'},
    ),
)
LIBRARIES: dict[str, Library] = {library.scope: library for library in _ALL}


def library_of(cfg: Mapping[str, Any], *, purpose: str) -> Library:
    """Return the library of a config.

    Args:
        cfg: A config with the entry ``default_scope``.
        purpose: What needs to know, for the message: an option, or a tool.

    Raises:
        UserError: If it is none of the table.
    """
    scope = cfg.get('default_scope')
    if scope not in LIBRARIES:
        raise UserError(f'{purpose}: default_scope {scope} is none of {", ".join(LIBRARIES)}')
    return LIBRARIES[scope]


def imported(name: str) -> Any:
    """Import the module, or the class after a colon, that a dotted name stands for."""
    return pkgutil.resolve_name(name)
