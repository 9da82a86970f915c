"""Register SwinV2 as a backbone in MMEngine's ``MODELS``."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS

from swinv2_mm.checkpoint import load_pretrained
from swinv2_mm.core import SwinTransformerV2


@MODELS.register_module()
class SwinV2(SwinTransformerV2):
    """``SwinTransformerV2`` for configs of mmdet, mmsegmentation and mmpretrain.

    Registered in the root registry, to which every library falls back.

    Args:
        arch: See ``SwinTransformerV2``, as for every other argument, such as ``attention``: a
            backend, or one per stage.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with weights in any layout that
            ``swinv2_mm.checkpoint`` reads, or ``None`` for the official initialisation.

    Raises:
        ValueError: If a value does not fit.
    """

    def __init__(
        self, arch: str | dict = 'tiny', *, init_cfg: dict | None = None, **kwargs: Any
    ) -> None:
        if init_cfg is not None and (
            init_cfg.get('type') != 'Pretrained' or set(init_cfg) != {'type', 'checkpoint'}
        ):
            raise ValueError(
                "init_cfg of SwinV2 must be dict(type='Pretrained', checkpoint=...) or None, got "
                f'{dict(init_cfg)}'
            )
        super().__init__(arch, **kwargs)
        self.init_cfg = init_cfg

    def init_weights(self) -> None:
        """Initialise as MMEngine's ``BaseModule`` would: the hook that a Runner calls.

        Raises:
            CheckpointError: If the weights named in ``init_cfg`` do not fit.
        """
        if self.init_cfg is None:
            self.reset_parameters()
            return
        report = load_pretrained(self, self.init_cfg['checkpoint'])
        print_log(f'SwinV2: {report}', logger='current')
