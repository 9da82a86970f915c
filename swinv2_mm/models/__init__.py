"""Register SwinV2 and everything else that a config may name with MMEngine.

Name it in a config: ``custom_imports = dict(imports='swinv2_mm.models')``. Works with any one of
mmdet, mmsegmentation and mmpretrain; none of them is needed for another. It also registers this
package for ``_base_ = 'swinv2_mm::...'``, and appends the folder of ``projects`` to ``sys.path``.
"""

import warnings

from swinv2_mm.installed import named_if_missing

with named_if_missing(), warnings.catch_warnings():
    # MMEngine uses what later versions of Python and torch deprecate.
    warnings.simplefilter('ignore')
    import mmengine.runner  # noqa: F401

from swinv2_mm.config.packages import register_packages
from swinv2_mm.datasets.panoptic_api import ensure_panopticapi
from swinv2_mm.ops import ensure_ops
from swinv2_mm.shipped import add_projects_to_path

# Before anything imports mmcv.ops or mmdet, which look for these modules once.
ensure_ops()
ensure_panopticapi()
register_packages()
add_projects_to_path()

import swinv2_mm.data_check.loading  # noqa: E402
import swinv2_mm.datasets.numbered_folders  # noqa: E402
import swinv2_mm.engine  # noqa: E402, F401

from .backbone import SwinV2  # noqa: E402
from .global_attention import GlobalAttentionNeck  # noqa: E402

__all__ = ['GlobalAttentionNeck', 'SwinV2']
