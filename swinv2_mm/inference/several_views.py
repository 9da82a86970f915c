"""Test-time augmentation of ``tools/test.py --tta`` for images of any origin."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn


def wrap_for_views(model: nn.Module, cfg: Config) -> nn.Module:
    """Make a model look at each image in several ways.

    Args:
        model: A trained model.
        cfg: Its config; the test pipeline in it is changed to end with the loaded image.

    Raises:
        UserError: If the views do not fit the pipeline or the model.
    """
    from swinv2_mm.testing.multi_view import MultiViewModel
    from swinv2_mm.testing.views import complete_tta, split_test_pipeline

    complete_tta(cfg)
    views = split_test_pipeline(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MultiViewModel(model, scope=cfg.default_scope, views=views, nms=cfg.tta.get('nms'))
