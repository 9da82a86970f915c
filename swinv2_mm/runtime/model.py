"""Predict with an exported file through the interface of a model: ``test_step``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from swinv2_mm.engine.trained_model import build_model
from swinv2_mm.errors import UserError

from .files import open_exported
from .masks import enlarged, pasted

# Masks that are held as float32 at a time.
_MASKS_PER_STEP = 16


class FileModel(nn.Module):
    """An exported file in the place of the model that it was exported from.

    Args:
        path: The file.
        model: The model of the same config, which sorts and scales what the file computes; its
            weights are not used.

    Raises:
        UserError: If the file cannot be read, or holds a backbone only.
    """

    def __init__(self, path: str | Path, *, model: nn.Module) -> None:
        super().__init__()
        self.file = open_exported(path)
        self.part = self.file.metadata.get('part', '')
        if self.part not in _TASKS:
            raise UserError(
                f'{path}: holds {self.part or "an unknown part"} of a model, which cannot predict; '
                'export it again without --what backbone'
            )
        self._predict, needed = _TASKS[self.part]
        if not hasattr(model, needed):
            raise UserError(
                f'{path}: holds the {self.part} of another config: {type(model).__name__} has no '
                f'{needed}; leave the config out, and that in the file is taken'
            )
        self.model: Any = model.eval()
        self.data_preprocessor: Any = model.data_preprocessor

    @torch.inference_mode()
    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """Predict for a batch as it comes from the data loader; returns data samples."""
        samples = []
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            # Images arrive as they are loaded: BGR.
            x = image.flip(0)[None].float()
            samples.append(self._predict(self, x, sample))
        return samples

    def _outputs(self, x: Tensor) -> dict[str, Tensor]:
        expected = self.file.metadata.get('size')
        found = list(x.shape[2:])
        if expected is not None and found != list(expected):
            raise UserError(
                f'{self.file.path} takes images of {expected[0]} x {expected[1]} px, and one of '
                f'{found[0]} x {found[1]} came: export with --dynamic, or with another --shape'
            )
        return self.file(x)

    def _classify(self, x: Tensor, sample: Any) -> Any:
        logits = self._outputs(x)['logits']
        self.model.extract_feat = lambda *_, **__: logits
        # The file computes logits, not features.
        self.model.head.forward = lambda feats: feats
        return self.model.predict(x, [sample])[0]

    def _segment(self, x: Tensor, sample: Any) -> Any:
        self.model.encode_decode = lambda crop, _: self._outputs(crop)['logits']
        return self.model.predict(x, [sample])[0]

    def _detect(self, x: Tensor, sample: Any) -> Any:
        found = {name: output[0] for name, output in self._outputs(x).items()}
        boxes = found['boxes'] / torch.tensor(sample.scale_factor).repeat(2)
        instances = InstanceData(bboxes=boxes, scores=found['scores'], labels=found['labels'])
        if 'mask_shapes' in found:
            height, width = sample.ori_shape[:2]
            threshold = self.model.roi_head.test_cfg.mask_thr_binary
            masks = torch.zeros((len(boxes), height, width), dtype=torch.bool)
            for start in range(0, len(boxes), _MASKS_PER_STEP):
                these = slice(start, start + _MASKS_PER_STEP)
                shapes = found['mask_shapes'][these]
                masks[these] = pasted(shapes, boxes[these], height=height, width=width) >= threshold
            instances.masks = masks
        sample.pred_instances = instances
        return sample

    def _fuse(self, x: Tensor, sample: Any) -> Any:
        found = self._outputs(x)
        masks = enlarged(found['mask_logits'])
        results = self.model.panoptic_fusion_head.predict(
            found['class_logits'], masks, [sample], rescale=True
        )
        return self.model.add_pred_to_datasample([sample], results)[0]


# For each part of a model that a file may hold: the function that predicts, and what a model of its
# config has.
_TASKS: dict[str, tuple[Callable[[FileModel, Tensor, Any], Any], str]] = {
    'classifier': (FileModel._classify, 'head'),
    'segmentor': (FileModel._segment, 'decode_head'),
    'two-stage': (FileModel._detect, 'roi_head'),
    'one-stage': (FileModel._detect, 'bbox_head'),
    'dino': (FileModel._detect, 'bbox_head'),
    'mask2former': (FileModel._fuse, 'panoptic_fusion_head'),
}


def load_file_model(cfg: Config, path: str | Path) -> FileModel:
    """Open an exported file in the place of the model of a config.

    Raises:
        UserError: If it cannot be read, or the config does not fit.
    """
    return FileModel(path, model=build_model(cfg))
