"""Wrap a trained model for test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from swinv2_mm.core.unwrapping import unwrapped
from swinv2_mm.libraries import imported, library_of

from .views import build_views, complete_tta, split_test_pipeline


def wrap_for_tta(model: nn.Module, cfg: Config) -> MultiViewModel:
    """Wrap a trained model by the entry ``tta`` of its config.

    Args:
        model: A trained model.
        cfg: Its config; the test pipeline in it is changed to end with the loaded image.

    Raises:
        UserError: If the views do not fit the pipeline or the model.
    """
    complete_tta(cfg)
    views = split_test_pipeline(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MultiViewModel(model, scope=cfg.default_scope, views=views, nms=cfg.tta.get('nms'))


@MODELS.register_module()
class MultiViewModel(BaseTTAModel):
    """Wrap a trained model; takes what ``KeepLoaded`` leaves of a pipeline.

    With a single view its prediction is the answer, mirrored back: nothing is averaged, and no
    non-maximum suppression runs a second time.

    Args:
        module: The trained model, or the wrapper for several processes around it.
        scope: Its library.
        views: As ``split_test_pipeline`` describes them.
        nms: Settings of the suppression for detectors that have none of their own.

    Raises:
        UserError: If the library has no way to merge predictions.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        scope: str,
        views: Sequence[dict],
        nms: dict | None = None,
    ) -> None:
        super().__init__(unwrapped(module))
        library = library_of({'default_scope': scope}, purpose='--tta')
        self._task = imported(library.tta_merging)
        self._views = build_views(views)
        self._nms = nms

    def test_step(self, data: dict) -> list:
        """Predict for a batch.

        Args:
            data: The images under ``loaded``. Receives ``inputs``, what is to be drawn on.
        """
        loaded = data['loaded']
        # mmpretrain's drawing hook looks for the pixels here.
        data['inputs'] = [torch.from_numpy(i.results['img']).permute(2, 0, 1) for i in loaded]
        if len(self._views) == 1:
            (view,) = self._views
            samples = self.module.test_step(view.batch(loaded))
            for sample in samples:
                self._task.mirror_back(sample, view.mirroring)
            return samples
        return self._task.merge(self.module, self._views, loaded, nms=self._nms)

    def merge_preds(self, data_samples_list: list) -> list:
        """Not used: predictions of all views would have to be in memory together."""
        raise NotImplementedError
