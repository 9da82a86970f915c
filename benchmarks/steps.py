"""Build the candidates of a case: backbones and whole models with a step to time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from .backbones import PEERS, Ours, Variant, build_ours, build_peer
from .cases import Case
from .products import ProductsAlone, matrix_products
from .timing import Candidate
from .whole_models import TASK_PEERS, training_step

LIMIT = 'products alone'
DTYPES = {'float32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass(frozen=True)
class Setting:
    """How a case is run.

    Attributes:
        mode: ``forward`` is an inference; ``training`` a forward and backward pass.
        dtype: Key of ``DTYPES``. The half types are those of autocast; weights stay float32.
        is_compiled: Whether ``torch.compile`` is used.
        device: Where.
    """

    mode: Literal['forward', 'training']
    dtype: str
    is_compiled: bool
    device: torch.device


def builders_of(
    case: Case, *, setting: Setting, variants: Sequence[Variant], peers: Sequence[str]
) -> Mapping[str, Callable[[], Candidate]]:
    """Return what builds each candidate, ours first, the limit last."""
    builders: dict[str, Callable[[], Candidate]] = {}
    if case.task is not None:
        for variant in variants:
            builders[f'ours {variant}'] = partial(_task, case, setting, variant)
        for name in peers:
            if name in TASK_PEERS:
                builders[name] = partial(_task, case, setting, name)
        return builders
    for variant in variants:
        builders[f'ours {variant}'] = partial(
            _backbone, case, setting, lambda v=variant: Ours(build_ours(case, variant=v))
        )
    for name in peers:
        builders[name] = partial(_backbone, case, setting, partial(build_peer, name, case))
    builders[LIMIT] = partial(_limit, case, setting)
    return builders


def all_peers() -> tuple[str, ...]:
    """Return the names of all other implementations."""
    return tuple(PEERS)


def _autocast(setting: Setting) -> torch.autocast:
    dtype = DTYPES[setting.dtype]
    is_half = dtype is not torch.float32
    return torch.autocast(
        setting.device.type, dtype=dtype if is_half else torch.bfloat16, enabled=is_half
    )


def _backbone(case: Case, setting: Setting, build: Callable[[], nn.Module]) -> Candidate:
    is_training = setting.mode == 'training'
    model = build().to(setting.device).train(is_training)
    run = torch.compile(model, dynamic=False) if setting.is_compiled else model
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, 3, *case.size_px, generator=generator).to(setting.device)
    # A gradient of the same size everywhere: that of a mean would vanish in the last norm.
    direction: Tensor | None = None

    def forward() -> Tensor:
        with torch.set_grad_enabled(is_training), _autocast(setting):
            return run(images)

    def step() -> Tensor:
        nonlocal direction
        model.zero_grad()
        out = forward()
        if is_training:
            if direction is None:
                direction = torch.randn(out.shape, generator=generator).to(out)
            out.backward(direction)
        return out.detach()

    first = forward if is_training else step
    return Candidate(step, first, model, is_compiled=setting.is_compiled)


def _limit(case: Case, setting: Setting) -> Candidate:
    counts = matrix_products(case, training=setting.mode == 'training')
    run = ProductsAlone(counts, device=setting.device, dtype=DTYPES[setting.dtype])
    return Candidate(run, run, model=None)


def _task(case: Case, setting: Setting, backbone: Variant | str) -> Candidate:
    model, step, forward = training_step(case, backbone=backbone, device=setting.device)
    if setting.is_compiled:
        model.backbone.compile(dynamic=False)

    def with_types(act: Callable[[], object]) -> object:
        with _autocast(setting):
            return act()

    return Candidate(
        partial(with_types, step),
        partial(with_types, forward),
        model,
        is_compiled=setting.is_compiled,
    )
