"""Estimate the GPU memory of a training by a run on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import finalize

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from swinv2_mm.core.torch_private import (
    BatchNorm,
    TorchDispatchMode,
    efficient_attention,
    storage_key,
    tree_map_only,
)

from .fake_model import KnownValues
from .fixed_cost import FixedCost

# AdamW keeps two float32 averages per weight.
_STATE_BYTES = 8


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU, without the CUDA context and the allocator's unused remainders.

    Attributes:
        weights: Parameters and buffers.
        gradients: One per trained parameter.
        optimizer_states: States of AdamW.
        activations: Kept from the forward for the backward pass.
        training: Peak of a training step.
        testing: Peak of an inference.
        training_flops: Operations of a forward and backward pass, what is recomputed included; a
            multiply-accumulate is two.
    """

    weights: int
    gradients: int
    optimizer_states: int
    activations: int
    training: int
    testing: int
    training_flops: int


class PeakMemory(TorchDispatchMode):
    """Track every storage from allocation to release, for real and fake tensors.

    Attributes:
        live: Bytes held now by tensors made since the start, or given to ``hold``.
        peak: The most that ``live`` has been.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed; views of it add nothing."""
        storage = tensor.untyped_storage()
        key = storage_key(storage)
        if key in self._known:
            return
        num_bytes = storage.nbytes()
        self._known.add(key)
        self.live += num_bytes
        self.peak = max(self.peak, self.live)
        finalize(storage, self._release, key, num_bytes)

    def _release(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.live -= num_bytes

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operator and count what it made."""
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.hold, out)
        return out


@contextmanager
def gpu_habits() -> Iterator[None]:
    """Emulate on a CPU what functions allocate on CUDA.

    - Attention with a bias that is trained uses the memory-efficient kernel, which keeps no
      N x N matrix; a CPU would fall back to one that does.
    - Under autocast LayerNorm runs in float32.
    """
    attention, layer_norm = F.scaled_dot_product_attention, F.layer_norm

    def layer_norm_in_float32(*args: Any, **kwargs: Any) -> Tensor:
        if torch.is_autocast_enabled('cpu'):
            args = tuple(a.float() if isinstance(a, Tensor) else a for a in args)
        return layer_norm(*args, **kwargs)

    # Exchanged in the module, not by a TorchFunctionMode: torch turns those off in the backward
    # pass, in which checkpointed blocks run again.
    F.scaled_dot_product_attention, F.layer_norm = _efficient_attention, layer_norm_in_float32
    try:
        yield
    finally:
        F.scaled_dot_product_attention, F.layer_norm = attention, layer_norm


def _efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -1e9)
        attn_mask = attn_mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    return efficient_attention(
        q, k, v, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
    )[0]


def estimate_memory(
    network: FixedCost, images: Tensor, *, amp: bool, with_testing: bool = True
) -> MemoryEstimate:
    """Run a training step and an inference on fake tensors and note the peaks.

    Activation checkpointing, frozen stages and shared buffers count as they run. The optimiser
    is AdamW; its step, which updates all weights at once, needs a copy of them.

    Compared on a CPU: equal to the tensors of a real run within 1 %, 17 % below the resident memory
    that such a run adds to its process (allocator and library workspaces). Not compared on a GPU.

    Args:
        network: A fake model; afterwards it has gradients.
        images: A fake batch.
        amp: Whether to run in mixed precision (half-precision products, float32 weights).
        with_testing: Whether to run the inference; else its peak is given as 0.
    """
    held = [*network.parameters(), *network.buffers()]
    weights = sum(t.nbytes for t in held)
    gradients = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    states = gradients // 4 * _STATE_BYTES
    peak, activations, training_flops = _run(network, images, amp=amp, training=True)
    step = weights + 2 * gradients
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer_states=states,
        activations=activations,
        training=states + max(peak, step),
        testing=_run(network, images, amp=amp, training=False).peak if with_testing else 0,
        training_flops=training_flops,
    )


class _Run(NamedTuple):
    """Bytes at the peak and between forward and backward, and the operations of both."""

    peak: int
    activations: int
    flops: int


class _Flops(TorchDispatchMode):
    """Sum the FLOPs of matrix products, convolutions and attention as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **kwargs, out_val=out)
        return out


def _run(network: FixedCost, images: Tensor, *, amp: bool, training: bool) -> _Run:
    network.train(training)
    # The target boxes from which DINO makes its denoising queries are not known here.
    if training and hasattr(network.model, 'dn_query_generator'):
        network.model.train(False)
    for module in network.modules():
        # In training it refuses the 1 x 1 map that PSP pooling makes of a single image.
        if isinstance(module, BatchNorm):
            module.train(False)
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(training))
        flops = stack.enter_context(_Flops())
        memory = stack.enter_context(PeakMemory())
        stack.enter_context(KnownValues())
        stack.enter_context(gpu_habits())
        for tensor in (*network.parameters(), *network.buffers(), images):
            memory.hold(tensor)
        before = memory.live
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=amp):
            outputs = network(images)
        activations = memory.live - before
        if training:
            torch.autograd.backward([x.float().mean() for x in outputs if x.requires_grad])
            network.zero_grad(set_to_none=True)
    return _Run(memory.peak, activations, flops.total)
