"""Choose the code that runs on a CPU by its processor: a table, with a measurement of each row.

torch carries two libraries for float32 products. ``F.linear`` takes MKL, which keeps to AVX2 on
processors that are not Intel's; oneDNN uses AVX-512 wherever it exists.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Literal, NamedTuple

import torch

Product = Literal['output', 'input_gradient', 'weight_gradient']
# Fixes the row, by name; runs on one row are bit-equal on one machine.
VARIABLE = 'SWINV2_CPU_KERNELS'


# The row of a training that is resumed.
_resumed: str | None = None


class CpuRule(NamedTuple):
    """What runs on a kind of processor.

    Attributes:
        name: What ``SWINV2_CPU_KERNELS`` calls it.
        capability: What ``torch.backends.cpu.get_cpu_capability`` returns, also ``AVX2`` where
            ``ONEDNN_MAX_CPU_ISA`` keeps oneDNN to it; ``None`` for any.
        vendor: The maker as the processor names itself; ``None`` for any.
        onednn: Products of linear layers that oneDNN makes; the others are ``F.linear``.
        most_kept_tokens: Windows of up to this many tokens save their softmax in training;
            backward computes that of larger ones again, which also takes less memory.
        measured: Why.
    """

    name: str
    capability: str | None
    vendor: str | None
    onednn: frozenset[Product]
    most_kept_tokens: int
    measured: str


_ALL: frozenset[Product] = frozenset(('output', 'input_gradient', 'weight_gradient'))

# The first row that fits is taken.
CPU_RULES = (
    CpuRule(
        'avx512-amd',
        capability='AVX512',
        vendor='AuthenticAMD',
        onednn=_ALL,
        most_kept_tokens=256,
        measured='EPYC (Zen 5), torch 2.15, one thread: oneDNN takes 0.42-0.48 of the time of MKL '
        'for outputs, 0.45-0.55 for gradients of inputs, 0.46-0.62 for those of weights, at the '
        'shapes of T and 256 px. A training step takes 0.93 of the time with the softmax kept, at '
        'windows 8 and 16 (ratios of processor time, one thread, a loaded machine).',
    ),
    CpuRule(
        'avx2',
        capability='AVX2',
        vendor=None,
        onednn=frozenset(),
        most_kept_tokens=256,
        measured='2 cores without AVX-512, torch 2.15, T, batch 2, ms of inference / training. 256 '
        'px, window 8: MKL and groups 332 / 903, MKL and eager 357 / 902, oneDNN and groups 361 / '
        '1098; window 16: 371 / 1193, 400 / 1029, 374 / 1314; 384 px, window 24: 1041 / 3165, 1623 '
        '/ 4126, 941 / 3960. Imitated on a Zen 5: a training step takes 0.97 and 0.96 of the time '
        'with the softmax kept, at windows 8 and 16, and 0.98 and 1.01 of that of eager.',
    ),
    CpuRule(
        'plain',
        capability=None,
        vendor=None,
        onednn=frozenset(),
        most_kept_tokens=256,
        measured='Not measured: products as torch makes them, attention as on all of the above.',
    ),
)


def _vendor() -> str:
    path = Path('/proc/cpuinfo')
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith('vendor_id'):
            return line.partition(':')[2].strip()
    return ''


def _capability() -> str:
    limit = os.environ.get('ONEDNN_MAX_CPU_ISA', 'DEFAULT').upper()
    capability: str = torch.backends.cpu.get_cpu_capability()
    is_limited = not limit.startswith(('AVX512', 'AVX10', 'DEFAULT', 'ALL'))
    return 'AVX2' if capability == 'AVX512' and is_limited else capability


def find_rule(*, capability: str, vendor: str, fixed: str | None = None) -> CpuRule:
    """Return the row of a processor, or the one that a name fixes.

    Raises:
        ValueError: If no row has that name.
    """
    if fixed:
        for rule in CPU_RULES:
            if rule.name == fixed:
                return rule
        names = ', '.join(rule.name for rule in CPU_RULES)
        raise ValueError(f"{VARIABLE}='{fixed}' names no row of kernels (known: {names})")
    return next(
        rule
        for rule in CPU_RULES
        if rule.capability in (None, capability) and rule.vendor in (None, vendor)
    )


@functools.cache
def cpu_rule() -> CpuRule:
    """Return the row of this processor, or what ``SWINV2_CPU_KERNELS`` says."""
    fixed = os.environ.get(VARIABLE) or _resumed
    return find_rule(capability=_capability(), vendor=_vendor(), fixed=fixed)


def resume_cpu_rule(name: str) -> str | None:
    """Take the row of the training that a checkpoint is of, for the rest of this process.

    Args:
        name: Name of the row that the checkpoint names.

    Returns:
        What there is to log: which row runs, and why; ``None`` if it is that of the processor.
    """
    global _resumed
    own = cpu_rule().name
    if name == own:
        return None
    if os.environ.get(VARIABLE):
        return f"CPU kernels '{own}', as {VARIABLE} says; those of the checkpoint are '{name}'"
    if name not in (rule.name for rule in CPU_RULES):
        return f"CPU kernels '{own}': those of the checkpoint, '{name}', are not known here"
    _resumed = name
    cpu_rule.cache_clear()
    return f"CPU kernels '{name}', as the checkpoint had; {VARIABLE}={own} takes this processor's"
