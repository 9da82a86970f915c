"""SwinV2 for OpenMMLab: detection, segmentation and classification at any window size.

Importing this package loads nothing heavy; ``import swinv2_mm.models`` registers the backbone.
``from swinv2_mm import SwinV2Inferencer`` brings the libraries in; ``recipe(name)`` is the path of
a config of this package.
"""

import sys
from typing import Any

if sys.version_info < (3, 10):  # noqa: UP036  pip refuses it, a clone does not
    raise ImportError(f'swinv2_mm needs Python 3.10 to 3.14, this is {sys.version.split()[0]}')

__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
    if name == 'SwinV2Inferencer':
        from swinv2_mm.installed import named_if_missing

        with named_if_missing():
            from swinv2_mm.inference import SwinV2Inferencer

        return SwinV2Inferencer
    if name == 'recipe':
        from swinv2_mm.shipped import recipe

        return recipe
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
