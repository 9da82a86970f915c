"""Shard a model over processes (torch FSDP2), and load and gather its whole values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.model import BaseDataPreprocessor
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from swinv2_mm.core.blocks import SwinBlock
from swinv2_mm.core.torch_private import (
    TorchDispatchMode,
    apply_to_tensors,
    is_in_place,
    replace_parameter,
    set_group_timeout,
)
from swinv2_mm.errors import UserError


@contextmanager
def meta_parameters() -> Iterator[None]:
    """Give parameters that are made meanwhile no memory; buffers, such as anchors, get theirs."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        # One that is there already is shared by two modules, and stays shared.
        if parameter is not None and not parameter.is_meta:
            on_meta = nn.Parameter(parameter.to('meta'), requires_grad=parameter.requires_grad)
            replace_parameter(module, name, on_meta)

    nn.Module.register_parameter = register_on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def shard(
    model: nn.Module,
    *,
    build: Callable[[], nn.Module],
    timeout: timedelta,
    num_shards: int | None = None,
) -> nn.Module:
    """Shard a model in place: each ``SwinBlock`` is one unit, all else another.

    Parameters without memory get that of their shard, filled with NaN until they are drawn or
    loaded.

    Args:
        model: Whole on every process, or without memory (``meta_parameters``).
        build: Makes the same model again, for a copy such as an average of its weights.
        timeout: How long processes wait for each other.
        num_shards: Processes that hold the model together, as neighbours; the next ones hold it
            again. ``None``: all.

    Raises:
        UserError: If it does not divide the number of processes.
    """
    device = torch.device(get_device())
    num_processes = get_world_size()
    num_shards = num_shards or num_processes
    if num_processes % num_shards:
        raise UserError(f'parallel: shards={num_shards} does not divide {num_processes} processes')
    # Blocks are gathered among neighbours, gradients are then averaged over their like.
    sizes = (num_processes // num_shards, num_shards)
    sizes, names = (sizes, ('copy', 'shard')) if sizes[0] > 1 else (sizes[1:], ('shard',))
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=names)
    for group in mesh.get_all_groups():
        set_group_timeout(timeout, group)
    for module in model.modules():
        # Remembers its device, for what it puts there.
        if isinstance(module, BaseDataPreprocessor):
            module.to(device)
    for block in [module for module in model.modules() if isinstance(module, SwinBlock)]:
        fully_shard(block, mesh=mesh)
    # torch would leave the rest whole after a forward pass without a backward pass; code
    # that reads the parameters then, such as an EMA of them, expects shards.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    apply_to_tensors(
        model,
        lambda t: torch.full_like(t, torch.nan, device=device) if t.is_meta else t.to(device),
    )

    def copied(memo: dict) -> nn.Module:
        with meta_parameters():
            copy = build()
        copy = shard(copy, build=build, timeout=timeout, num_shards=num_shards)
        copy.load_state_dict(model.state_dict())
        return copy

    # torch has none: the copy would share the groups of the original.
    model.__deepcopy__ = copied
    return model


class _WholeValues(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else None
        if isinstance(target, DTensor):
            if torch.Tag.nondeterministic_seeded in func.tags and is_in_place(func):
                whole = torch.empty(target.shape, dtype=target.dtype, device=target.device)
                whole = func(whole, *args[1:], **kwargs)
            elif func is torch.ops.aten.copy_.default and not isinstance(args[1], DTensor):
                whole = args[1].expand(target.shape)
            else:
                return func(*args, **kwargs)
            target.to_local().copy_(cut(whole, like=target).to_local())
            return target
        return func(*args, **kwargs)


def whole_values() -> TorchDispatchMode:
    """Fill shards from whole values: with ``with``, what is drawn into or copied to one.

    Every process draws the whole tensor, one at a time, and keeps its part: the values do not
    depend on the number of processes, and are those of a model that is not cut.
    """
    return _WholeValues()


def cut(whole: Tensor, *, like: DTensor) -> DTensor:
    """Keep this process's part of a tensor, as ``like`` is cut; nothing is sent."""
    whole = whole.to(device=like.device, dtype=like.dtype)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def gathered(tree: Any) -> Any:
    """Make shards in a nest of dicts and lists whole, on the main process; all must call it."""

    def whole(shards: DTensor) -> Tensor:
        value = shards.full_tensor()
        return value.cpu() if is_main_process() else value.new_empty(0)

    return apply_to(tree, lambda value: isinstance(value, DTensor), whole)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """List the parameters in the order by which the state in a checkpoint is numbered."""
    return [parameter for group in optimizer.param_groups for parameter in group['params']]


def cut_optimizer_state(state_dict: dict, optimizer: torch.optim.Optimizer) -> None:
    """Cut the whole state in a checkpoint as the parameters of ``optimizer`` are cut."""
    for index, parameter in enumerate(parameters_of(optimizer)):
        state = state_dict['state'].get(index, {})
        for name, value in state.items():
            if not isinstance(value, DTensor) and value.shape == parameter.shape:
                state[name] = cut(value, like=parameter)


def draw_constructed(model: nn.Module) -> None:
    """Draw what layers draw when they are made, for a model that was made without memory."""
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            # nn.MultiheadAttention's has an underscore.
            for name in ('reset_parameters', '_reset_parameters'):
                getattr(module, name, lambda: None)()


def check_drawn(model: nn.Module) -> None:
    """Check that nothing draws or loads the parameters that are still NaN.

    Raises:
        UserError: If some are.
    """
    names, values = zip(*model.named_parameters(), strict=True)
    unset = torch.stack([v.to_local().isnan().any() for v in values]).int()
    all_reduce(unset, 'max')
    if missing := [name for name, flag in zip(names, unset.tolist(), strict=True) if flag]:
        raise UserError(
            f"parallel: init='sharded' cannot draw {len(missing)} parameters, such as "
            f"{missing[0]}: their module has no reset_parameters; leave init='sharded' out"
        )
