"""Plain DETR (arXiv 2308.01904): a detector that reads one map of stride 16, all of it.

A config names this package in ``custom_imports``, after ``swinv2_mm.models``.
"""

import swinv2_mm.models  # noqa: F401  first: it puts the stand-in for mmcv's compiled ops in place

from .detector import PlainDETR, UpsampledMap
from .head import BoxDeltaL1Cost, PlainDETRHead

__all__ = ['BoxDeltaL1Cost', 'PlainDETR', 'PlainDETRHead', 'UpsampledMap']
