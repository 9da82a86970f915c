"""Access the private names of torch that this package uses, in one place.

``PRIVATE_NAMES`` lists them, and a test asserts that the installed torch has each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import (
    _current_graph_task_id,
    _functorch,
    _get_dispatch_mode,
    _is_tracing,
    _TorchDispatchModeKey,
)
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map_only as tree_map_only
from torch.utils.data import dataloader

# Owner, or the module to import it from, and the name of what is used of it.
PRIVATE_NAMES: tuple[tuple[object, str], ...] = (
    (torch, '_softmax_backward_data'),
    (torch, '_foreach_norm'),
    (torch, '_foreach_copy_'),
    (torch, '_shape_as_tensor'),
    (torch.ops.mkldnn, '_linear_pointwise'),
    (torch.ops.aten, '_scaled_dot_product_efficient_attention'),
    (torch.ops.aten, '_scaled_dot_product_efficient_attention_backward'),
    (torch.ops.aten, '_scaled_dot_product_flash_attention_for_cpu'),
    (torch.ops.aten, 'unfold_backward'),
    (torch.ops.aten.copy_.default, '_schema'),
    # Registered when torchvision is imported.
    (torch.ops.torchvision, '_roi_align_backward'),
    (torch.ops.torchvision, '_deform_conv2d_backward'),
    (torch.UntypedStorage, '_cdata'),
    (nn.Module, '_apply'),
    # Overridden by modules that take a window from the weights.
    (nn.Module, '_load_from_state_dict'),
    (nn.Module(), '_parameters'),
    (nn.modules.batchnorm, '_BatchNorm'),
    (nn.Module(), '_forward_hooks'),
    (nn.Module(), '_forward_pre_hooks'),
    (nn.Module(), '_backward_hooks'),
    (nn.Module(), '_backward_pre_hooks'),
    (nn.modules.module, '_global_forward_hooks'),
    (nn.modules.module, '_global_forward_pre_hooks'),
    (nn.modules.module, '_global_backward_hooks'),
    (nn.modules.module, '_global_backward_pre_hooks'),
    ('torch._C', '_get_dispatch_mode'),
    ('torch._C', '_is_tracing'),
    ('torch._C', '_TorchDispatchModeKey'),
    ('torch._C', '_current_graph_task_id'),
    ('torch._C._functorch', 'peek_interpreter_stack'),
    (forward_ad, '_current_level'),
    ('torch.utils._python_dispatch', 'TorchDispatchMode'),
    ('torch.utils._pytree', 'tree_leaves'),
    ('torch.utils._pytree', 'tree_map_only'),
    ('torch.utils.data.dataloader', '_BaseDataLoaderIter'),
    ('torch._subclasses.fake_tensor', 'FakeTensorMode'),
    ('torch._subclasses.fake_tensor', 'FakeTensor'),
    ('torch.fx.experimental._config', 'backed_size_oblivious'),
    ('torch.distributed.distributed_c10d', '_get_default_store'),
    ('torch.distributed.checkpoint.metadata', '_MEM_FORMAT_ENCODING'),
    ('torch.distributed.checkpoint.filesystem', '_StorageInfo'),
    ('torch.serialization', '_get_layout'),
)

# Those that not all supported versions have, with the oldest tested one that does.
SINCE = {'backed_size_oblivious': '2.11'}

LoaderIterator = dataloader._BaseDataLoaderIter
BatchNorm = nn.modules.batchnorm._BatchNorm
# Faster than torch.jit.is_tracing, which asks for scripting too.
is_jit_tracing: Callable[[], bool] = _is_tracing
softmax_backward: Callable[..., Tensor] = torch._softmax_backward_data
norms_of_tensors: Callable[..., tuple[Tensor, ...]] = torch._foreach_norm
foreach_copy: Callable[..., object] = torch._foreach_copy_
shape_as_tensor: Callable[[Tensor], Tensor] = torch._shape_as_tensor
# The operator that torch's compiler emits for linear layers on a CPU; a build may lack oneDNN.
onednn_linear: Any = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
unfold_backward: Callable[..., Tensor] = torch.ops.aten.unfold_backward
efficient_attention: Callable[..., tuple[Tensor, ...]] = (
    torch.ops.aten._scaled_dot_product_efficient_attention
)
efficient_attention_backward: Callable[..., tuple[Tensor, ...]] = (
    torch.ops.aten._scaled_dot_product_efficient_attention_backward
)
attention_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def storage_key(storage: torch.UntypedStorage) -> int:
    """Return a key that identifies a storage while it lives, also one without memory."""
    return storage._cdata


def is_in_place(operator: Any) -> bool:
    """Whether an operator that is dispatched changes one of its arguments."""
    return bool(operator._schema.is_mutable)


def operator_name(operator: Any) -> str:
    """Return the name of an operator that is dispatched, with its namespace: ``aten::mm``."""
    return str(operator._schema.name)


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of a module is more than its ``forward``."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def has_global_hooks() -> bool:
    """Whether a hook was registered on all modules of the process."""
    module = nn.modules.module
    return bool(
        module._global_forward_hooks
        or module._global_forward_pre_hooks
        or module._global_backward_hooks
        or module._global_backward_pre_hooks
    )


def has_active_transform() -> bool:
    """Whether a transform of ``torch.func``, or forward-mode differentiation, is at work."""
    return _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def is_recording() -> bool:
    """Whether operators are recorded as they run (``make_fx``)."""
    return _get_dispatch_mode(_TorchDispatchModeKey.PROXY) is not None


def is_exporting() -> bool:
    """Whether ``torch.export`` traces this call. torch 2.6 cannot tell; Dynamo only compiles."""
    if hasattr(torch.compiler, 'is_exporting'):
        return torch.compiler.is_exporting()
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


def is_faking() -> bool:
    """Whether a ``FakeTensorMode`` runs operators without data."""
    return _get_dispatch_mode(_TorchDispatchModeKey.FAKE) is not None


def is_in_backward() -> bool:
    """Whether this runs in a backward pass, such as what a checkpoint computes again."""
    return bool(_current_graph_task_id() != -1)


def default_store() -> Any:
    """Return the store that the processes of a distributed job were started with."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def replace_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Replace a parameter without calling ``register_parameter``."""
    module._parameters[name] = parameter


def apply_to_tensors(module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Replace all parameters and buffers of a module, as ``Module.to`` does."""
    module._apply(function)


def vision_operator(name: str) -> Callable[..., Any]:
    """Return an operator of torchvision, which must have been imported."""
    operator: Callable[..., Any] = getattr(torch.ops.torchvision, name)
    return operator


def sizes_of_one_are_like_others() -> AbstractContextManager[object]:
    """Let ``torch.export`` take an axis of length 1 for one of any length, within a ``with``."""
    if not hasattr(_config, 'backed_size_oblivious'):  # torch 2.6: its shapes have no such rule
        return nullcontext()
    patch: AbstractContextManager[object] = _config.patch(  # type: ignore[attr-defined]
        backed_size_oblivious=True
    )
    return patch


def set_group_timeout(timeout: timedelta, group: Any) -> None:
    """Set how long the processes of a group wait for each other."""
    from torch.distributed import distributed_c10d

    # torch 2.11 has it by another name.
    set_timeout = getattr(distributed_c10d, 'set_timeout', None)
    (set_timeout or distributed_c10d._set_pg_timeout)(timeout, group)


def types_of_sharded_index() -> tuple[Any, ...]:
    """Return the types in the index of a sharded checkpoint that torch keeps to itself."""
    from torch import serialization
    from torch.distributed.checkpoint import filesystem, metadata

    return metadata._MEM_FORMAT_ENCODING, filesystem._StorageInfo, serialization._get_layout
