"""Define the module that replaces ``mmcv._ext`` when mmcv has no compiled ops."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import NoReturn

from mmengine.logging import print_log

from swinv2_mm.mmengine_private import has_logger

from .carafe import carafe_backward, carafe_forward
from .deformable_attention import ms_deform_attn_backward, ms_deform_attn_forward
from .deformable_convolution import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .deformable_roi_pool import deform_roi_pool_backward, deform_roi_pool_forward
from .focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from .line_nms import line_nms_forward
from .masked_convolution import masked_col2im_forward, masked_im2col_forward
from .missing_op import missing_op
from .nms import nms, nms_match
from .psa_mask import psamask_backward, psamask_forward
from .roi_align import roi_align_backward, roi_align_forward
from .roi_pool import roi_pool_backward, roi_pool_forward
from .soft_nms import softnms
from .sync_batch_norm import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)

NAME = 'mmcv._ext'

COVERED = {
    op.__name__: op
    for op in (
        carafe_backward,
        carafe_forward,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        deform_conv_forward,
        deform_roi_pool_backward,
        deform_roi_pool_forward,
        line_nms_forward,
        masked_col2im_forward,
        masked_im2col_forward,
        modulated_deform_conv_backward,
        modulated_deform_conv_forward,
        ms_deform_attn_backward,
        ms_deform_attn_forward,
        nms,
        nms_match,
        psamask_backward,
        psamask_forward,
        roi_align_backward,
        roi_align_forward,
        roi_pool_backward,
        roi_pool_forward,
        sigmoid_focal_loss_backward,
        sigmoid_focal_loss_forward,
        softnms,
        sync_bn_backward_data,
        sync_bn_backward_param,
        sync_bn_forward_mean,
        sync_bn_forward_output,
        sync_bn_forward_var,
    )
}


class StandIn(ModuleType):
    """Extension module with every op that mmcv looks up on import; the covered ones work.

    Args:
        name: Name of the module.
        failure: Why the compiled module that is there did not load; ``None`` if there is none.
    """

    def __init__(self, name: str, *, failure: str | None = None) -> None:
        super().__init__(name)
        self._failure = failure
        self._is_announced = False
        for op_name, op in COVERED.items():
            setattr(self, op_name, self._announcing(op))

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # Python looks for dunder names to learn what a module is; no op has a leading underscore.
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

        def refuse(*args: object, **kwargs: object) -> NoReturn:
            raise missing_op(name)

        return refuse

    @staticmethod
    def get_compiler_version() -> str:
        """For mmcv's report of the environment."""
        return 'n/a'

    @staticmethod
    def get_compiling_cuda_version() -> str:
        """For mmcv's report of the environment."""
        return 'n/a'

    def _announcing(self, op: Callable) -> Callable:
        """Return ``op`` with a log message at its first call.

        Not at installation: that happens on import, before a run has its logger, and MMEngine's
        ``print_log`` would then create one that belongs to no run.
        """

        @functools.wraps(op)
        def call(*args: object, **kwargs: object) -> object:
            if not self._is_announced and has_logger():
                self._is_announced = True
                self._announce()
            return op(*args, **kwargs)

        return call

    def _announce(self) -> None:
        message = (
            'mmcv has no compiled ops: swinv2_mm computes those that it covers with '
            'torchvision and plain torch.'
        )
        level = logging.INFO
        if self._failure is not None:
            message = f"mmcv's compiled ops do not load ({self._failure}). {message}"
            level = logging.WARNING
        print_log(message, logger='current', level=level)


class StandInLoader(Loader):
    """Loader by which the stand-in is a module like any other, also for ``find_spec``."""

    def __init__(self, *, failure: str | None = None) -> None:
        self.failure = failure

    def create_module(self, spec: ModuleSpec) -> StandIn:
        """Return the complete module."""
        return StandIn(spec.name, failure=self.failure)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: there is no code to run."""


def build(*, failure: str | None = None) -> StandIn:
    """Build a new stand-in without installing it."""
    spec = ModuleSpec(NAME, StandInLoader(failure=failure), origin=__name__)
    return module_from_spec(spec)


def install(*, failure: str | None = None) -> None:
    """Put a stand-in where ``import mmcv._ext`` finds it; mmcv must have been imported."""
    module = build(failure=failure)
    sys.modules[NAME] = module
    sys.modules['mmcv']._ext = module
