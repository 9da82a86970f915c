"""PVTv2 (arXiv 2106.13797) b0 to b5 and b2-li on mmdet's own backbone.

In a config: ``custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])``.
"""

import swinv2_mm.models  # noqa: F401  first: it puts the stand-in for mmcv's compiled ops in place

from .backbone import ARCHITECTURES, PVTv2

__all__ = ['ARCHITECTURES', 'PVTv2']
