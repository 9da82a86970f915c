"""SimMIM for SwinV2 (arXiv 2111.09886), on mmpretrain's parts where they are right.

In a config: ``custom_imports = dict(imports=['swinv2_mm.models', 'projects.simmim.simmim'])``.
"""

import swinv2_mm.models  # noqa: F401  first: it puts the stand-in for mmcv's compiled ops in place

from .head import MaskedPixelHead
from .masks import RandomBlockMask
from .metric import MaskedL1
from .model import MaskedImageModel
from .pictures import ReconstructionVisualizer
from .swin_v1 import SwinV1SignalHook

__all__ = [
    'MaskedImageModel',
    'MaskedL1',
    'MaskedPixelHead',
    'RandomBlockMask',
    'ReconstructionVisualizer',
    'SwinV1SignalHook',
]
