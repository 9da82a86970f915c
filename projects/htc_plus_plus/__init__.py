"""InstaBoost for HTC++ (arXiv 2103.14030, 2111.09883).

In a config: ``custom_imports = dict(imports=['swinv2_mm.models', 'projects.htc_plus_plus'])``.
"""

import swinv2_mm.models  # noqa: F401  first: it puts the stand-in for mmcv's compiled ops in place

from .instaboost import CheckedInstaBoost

__all__ = ['CheckedInstaBoost']
