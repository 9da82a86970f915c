"""The published model sizes (paper section 3.6; SimMIM's g) and the reading of custom ones."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """Width and depth of a Swin Transformer V2.

    Attributes:
        embed_dim: Channels ``C`` of the first stage; they double at each later stage.
        depths: Blocks per stage.
        num_heads: Attention heads per stage.
        extra_norm_every: A LayerNorm on the main branch follows every this many blocks of a
            stage (paper 3.6, sizes H and G); ``None`` for none.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    extra_norm_every: int | None = None

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.num_heads) or not self.depths:
            raise ValueError(
                f'arch needs one depth and one head count per stage, got depths={self.depths} '
                f'and num_heads={self.num_heads}'
            )
        numbers = [self.embed_dim, *self.depths, *self.num_heads]
        if self.extra_norm_every is not None:
            numbers.append(self.extra_norm_every)
        if any(type(n) is not int or n < 1 for n in numbers):
            raise ValueError(f'arch takes positive whole numbers only, got {self}')
        for dim, heads in zip(self.dims, self.num_heads, strict=True):
            if dim % heads:
                raise ValueError(
                    f'{heads} heads do not divide the {dim} channels of their stage; change '
                    'num_heads or embed_dim of arch'
                )

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels per stage."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))


ARCHITECTURES = {
    'tiny': Architecture(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    'small': Architecture(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    'base': Architecture(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    'large': Architecture(192, (2, 2, 18, 2), (6, 12, 24, 48)),
    # The paper gives no head count for H; a head dimension of 32 is that of every other size.
    'huge': Architecture(352, (2, 2, 18, 2), (11, 22, 44, 88), extra_norm_every=6),
    'giant': Architecture(512, (2, 2, 42, 4), (16, 32, 64, 128), extra_norm_every=6),
    # "SwinV2-giant" of the SimMIM family: 1.06 billion parameters, a third of the paper's.
    'simmim_giant': Architecture(448, (2, 2, 18, 2), (14, 28, 56, 112), extra_norm_every=6),
}


def resolve_architecture(arch: str | Mapping[str, Any] | Architecture) -> Architecture:
    """Turn a size's name or a dictionary of ``Architecture``'s fields into an ``Architecture``.

    Raises:
        ValueError: If the name or a key is unknown, a key is missing or a value does not fit.
    """
    if isinstance(arch, Architecture):
        return arch
    if isinstance(arch, str):
        if arch in ARCHITECTURES:
            return ARCHITECTURES[arch]
        close = difflib.get_close_matches(arch, ARCHITECTURES, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ''
        raise ValueError(
            f"unknown arch '{arch}'{hint} (known: {', '.join(ARCHITECTURES)}, or a dict with "
            'embed_dim, depths, num_heads and, if wanted, extra_norm_every)'
        )
    if not isinstance(arch, Mapping):
        raise ValueError(f'arch must be a name or a dict, got {type(arch).__name__}')
    known = {field.name for field in fields(Architecture)}
    missing = known - {'extra_norm_every'} - set(arch)
    unknown = set(arch) - known
    if missing or unknown:
        raise ValueError(
            f'arch dict: missing {sorted(missing) or "nothing"}, unknown '
            f'{sorted(unknown) or "nothing"}; its keys are embed_dim, depths, num_heads and '
            'extra_norm_every'
        )
    for key in ('depths', 'num_heads'):
        if not isinstance(arch[key], Sequence) or isinstance(arch[key], str):
            raise ValueError(f'arch dict: {key} needs one number per stage, got {arch[key]!r}')
    return Architecture(
        embed_dim=arch['embed_dim'],
        depths=tuple(arch['depths']),
        num_heads=tuple(arch['num_heads']),
        extra_norm_every=arch.get('extra_norm_every'),
    )
