"""Build models of fake tensors: shapes and dtypes without memory for values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from swinv2_mm.core.torch_private import FakeTensor, FakeTensorMode, shape_as_tensor
from swinv2_mm.errors import UserError


def build_fake(model_cfg: dict, *, scope: str) -> nn.Module:
    """Build a model of a config in no memory, whatever its size.

    SyncBN becomes BN, which costs the same and runs in one process.

    Args:
        model_cfg: The config's ``model``.
        scope: Library that the config names as ``default_scope``.

    Raises:
        UserError: If a value in the config does not fit the class that takes it.
    """
    with MODELS.switch_scope_and_registry(scope) as registry, KnownValues(), _FakeWeights():
        try:
            model = registry.build(model_cfg)
        except (ValueError, TypeError, KeyError, AssertionError) as error:
            raise UserError(f'model of the config: {error}') from error
        return revert_sync_batchnorm(model)


def fake_images(model: nn.Module, *, batch: int, size_px: tuple[int, int]) -> Tensor:
    """Return images that ``model``, from ``build_fake``, can be called with.

    Shapes:
        -> (batch, 3, H_px, W_px)
    """
    with next(p for p in model.parameters() if isinstance(p, FakeTensor)).fake_mode:
        return torch.empty(batch, 3, *size_px)


class _FakeWeights(TorchFunctionMode):
    """Mode that makes weights fake tensors; other constants keep their values.

    Constructors read numbers off small tensors (rates of stochastic depth off ``linspace``), so
    that a mode which makes all tensors fake will not do.
    """

    _SOURCES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)

    def __init__(self) -> None:
        super().__init__()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in self._SOURCES:
            with self._mode:
                return func(*args, **(kwargs or {}))
        if func == Tensor.data.__set__ and not isinstance(args[1], FakeTensor):
            # Real values given to a weight (mmcv does so): a fake one has no place for them.
            return None
        return func(*args, **(kwargs or {}))


class KnownValues(TorchFunctionMode):
    """Mode that answers questions about the values of a fake tensor where the answer is known.

    - Where it lies in memory (a kept bias table is recognised by it): nowhere.
    - Whether any element of a mask is set: no (a truncated normal draws again while there is one).
    - The shape of a map as a tensor (deformable attention loops over it): read from the map.
    - Which queries see nothing (Mask2Former): none.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Pass on what needs no values."""
        if args and isinstance(args[0], FakeTensor):
            if func is Tensor.data_ptr:
                return 0
            if func is Tensor.any and len(args) == 1:
                return torch.tensor(False)
            if func is shape_as_tensor:
                return torch.tensor(args[0].shape)
            if func is torch.where and len(args) == 1:
                with args[0].fake_mode:
                    return tuple(torch.zeros(0, dtype=torch.long) for _ in args[0].shape)
        return func(*args, **(kwargs or {}))
