"""Plan how a training fits into the memory of a GPU: options from the cheapest on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass

from mmengine.config import Config

from swinv2_mm.config.entries import read_entry
from swinv2_mm.config.options import apply_options
from swinv2_mm.core.architectures import resolve_architecture
from swinv2_mm.errors import UserError

from .fake_model import build_fake, fake_images
from .fixed_cost import FixedCost
from .memory import MemoryEstimate, estimate_memory

# Sellers of GPUs say GB and mean 2^30 bytes.
_UNITS = {'': 2**30, 'G': 2**30, 'M': 2**20}
# Wrappers that a config may name itself instead of having the entry ``precision``.
_HALF_PRECISION = ('AmpOptimWrapper', 'Bfloat16OptimWrapper')
# The rest is for the CUDA context and for what the allocator cannot use. An assumption.
_USABLE_RATE = 0.9
_BUDGET = re.compile(r'(\d+(?:\.\d+)?)\s*([GM]?)(?:i?B)?', re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """A set of options.

    Attributes:
        words: What it adds to the plan before it.
        options: All of it, as ``--cfg-options`` takes them.
        batch: Images at once.
    """

    words: str
    options: tuple[str, ...]
    batch: int


@dataclass(frozen=True)
class FittedPlan(Plan):
    """A plan and its estimate.

    Attributes:
        size_px: Height and width of an image.
        peak: Bytes at the peak of a training step on one GPU.
        fits: Whether the budget holds them.
        memory: Memory of one process that keeps all states of the optimizer.
    """

    size_px: tuple[int, int]
    peak: int
    fits: bool
    memory: MemoryEstimate

    @property
    def flops_per_image(self) -> float:
        """Operations of a training step, per image."""
        return self.memory.training_flops / self.batch


def parse_budget(text: str) -> int:
    """Read ``24GB``, ``24GiB``, ``24`` or ``500MB`` as bytes.

    Raises:
        UserError: If it is none of these.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UserError(f"--budget takes a size such as 24GB, got '{text}'")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def plans(cfg: Config, *, batch: int, with_bf16: bool = True) -> Iterator[Plan]:
    """List what can be done, each on top of what came before.

    First what costs no time or little (bf16, windows in groups), then what repeats the forward
    pass of more and more stages, then smaller batches with the same sum of gradients, at last
    frozen stages, which change what is learnt.

    Args:
        cfg: A whole config whose model has a SwinV2.
        batch: Images at once to begin with.
        with_bf16: Whether the GPU has bfloat16.

    Raises:
        UserError: If the config has no SwinV2 at ``model.backbone``.
    """
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    if backbone.get('type') != 'SwinV2':
        raise UserError('the config has no SwinV2 at model.backbone')
    num_stages = len(resolve_architecture(backbone.get('arch', 'tiny')).depths)
    options: dict[str, object] = {}

    def plan(words: str) -> Plan:
        texts = (f'{key}={value}' for key, value in options.items())
        # No spaces or quotes, which a shell would take for its own.
        return Plan(words, tuple(re.sub("[ ']", '', text) for text in texts), batch)

    yield plan('as it is')
    if with_bf16 and not is_mixed_precision(cfg):
        options['precision'] = 'bf16'
        yield plan('bf16')
    attention = backbone.get('attention', 'auto')
    others = [attention] * num_stages if isinstance(attention, str) else list(attention)
    for i in range(num_stages):
        if others[i] != 'sequential':
            others[i] = 'sequential'
            options['model.backbone.attention'] = list(others)
            yield plan(f'windows of stage {i} in groups')
    with_cp = backbone.get('with_cp', False)
    recomputed = [with_cp] * num_stages if isinstance(with_cp, bool) else list(with_cp)
    for i in range(num_stages):
        if not recomputed[i]:
            recomputed[i] = True
            options['model.backbone.with_cp'] = list(recomputed)
            yield plan(f'stage {i} recomputed')
    counts = read_entry(cfg, 'accumulate')
    if counts == 1:
        counts = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    while batch > 1:
        part = next(number for number in range(2, batch + 1) if batch % number == 0)
        batch, counts = batch // part, counts * part
        options['train_dataloader.batch_size'] = batch
        options['accumulate'] = counts
        yield plan(f'batches of {batch}, {counts} per step')
    for i in range(max(backbone.get('frozen_stages', -1) + 1, 0), num_stages - 1):
        options['model.backbone.frozen_stages'] = i
        yield plan(f'stage {i} frozen')


def is_mixed_precision(cfg: Config) -> bool:
    """Whether a config trains in mixed precision."""
    wrapper = (cfg.get('optim_wrapper') or {}).get('type')
    return read_entry(cfg, 'precision') is not None or wrapper in _HALF_PRECISION


def estimate_plan(cfg: Config, plan: Plan, *, size_px: tuple[int, int]) -> MemoryEstimate:
    """Estimate what a training takes under a plan.

    Args:
        cfg: The config without the plan.
        size_px: Height and width of an image.

    Raises:
        UserError: If the config is not valid.
    """
    changed = deepcopy(cfg)
    apply_options(changed, plan.options)
    model = build_fake(changed.model, scope=changed.default_scope)
    images = fake_images(model, batch=plan.batch, size_px=size_px)
    return estimate_memory(
        FixedCost(model), images, amp=is_mixed_precision(changed), with_testing=False
    )


def fitted_plans(
    cfg: Config,
    *,
    budget: int,
    batch: int,
    size_px: tuple[int, int],
    zero_1: int = 1,
    with_bf16: bool = True,
    on_plan: Callable[[str], object] = lambda words: None,
) -> Iterator[FittedPlan]:
    """Estimate one plan after another.

    Args:
        cfg: A whole config whose model has a SwinV2.
        budget: Bytes of one GPU, of which a tenth is left free.
        batch: Images at once to begin with.
        size_px: Height and width of an image.
        zero_1: GPUs that share the states of AdamW.
        with_bf16: Whether the GPU has bfloat16.
        on_plan: Is called with the name of a plan before it is estimated.

    Raises:
        UserError: If the config is not valid, or has no SwinV2.
    """
    for plan in plans(cfg, batch=batch, with_bf16=with_bf16):
        on_plan(plan.words)
        memory = estimate_plan(cfg, plan, size_px=size_px)
        states = memory.optimizer_states
        peak = memory.training - states + states // zero_1
        fits = peak <= _USABLE_RATE * budget
        yield FittedPlan(**asdict(plan), size_px=size_px, peak=peak, fits=fits, memory=memory)
