"""Offer the backbone to ``torch.hub.load(REPOSITORY, 'swinv2_tiny')``; OpenMMLab is not needed."""

from __future__ import annotations

from functools import partial
from typing import Any

from swinv2_mm.checkpoint import load_pretrained
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.architectures import ARCHITECTURES

dependencies = ['torch', 'safetensors']


def swinv2(arch: str, *, weights: str | None = None, **settings: Any) -> SwinTransformerV2:
    """Build a backbone, with weights if they are named.

    Args:
        arch: ``tiny``, ``small``, ``base``, ``large``, ``huge`` or ``giant``.
        weights: A released name such as ``swinv2-tiny-w8-256_in1k``, a file or a URL.
        settings: Arguments of ``SwinTransformerV2``, such as ``window_size=16``.
    """
    model = SwinTransformerV2(arch, **settings)
    if weights is not None:
        load_pretrained(model, weights)
    return model


for _arch in ARCHITECTURES:
    globals()[f'swinv2_{_arch}'] = partial(swinv2, _arch)
