"""Name what other implementations compute differently with the same weights.

Weights were trained with them, so they are kept with the weights: a state dict holds the entry
``numerics`` where they are not the official ones.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

NumericsName = Literal['official', 'mindspore']
# A state dict holds the number of a name: names are only ever added at the end.
NUMERICS_NAMES: tuple[NumericsName, ...] = ('official', 'mindspore')
# Its entry in a state dict.
NUMERICS_ENTRY = 'numerics'


class Numerics(NamedTuple):
    """How a SwinV2 normalises and activates.

    Attributes:
        norm_eps: Epsilon of the layer norms.
        merging_norm_eps: Epsilon of the norms of patch mergings.
        gelu: ``none``, the exact GELU, or ``tanh``, its approximation.
    """

    norm_eps: float
    merging_norm_eps: float
    gelu: Literal['none', 'tanh']


# MindCV 0.3.0, mindcv/models/swintransformerv2.py; GELU of MindSpore approximates by default.
SWIN_NUMERICS: dict[NumericsName, Numerics] = {
    'official': Numerics(norm_eps=1e-5, merging_norm_eps=1e-5, gelu='none'),
    'mindspore': Numerics(norm_eps=1e-6, merging_norm_eps=1e-5, gelu='tanh'),
}


def numerics_of(entry: Tensor | None) -> NumericsName:
    """Return the name that an entry of a state dict stands for; without one, ``official``.

    Raises:
        ValueError: If it stands for none.
    """
    if entry is None:
        return 'official'
    number = entry.item() if entry.numel() == 1 and not entry.is_meta else -1
    if number not in range(len(NUMERICS_NAMES)):
        raise ValueError(f"the entry '{NUMERICS_ENTRY}' is not one that this version writes")
    return NUMERICS_NAMES[int(number)]


class KeepsNumerics(nn.Module):
    """A module whose state dict says by which numerics its weights are to be used."""

    numerics: NumericsName = 'official'

    def set_numerics(self, numerics: NumericsName) -> None:
        """Compute as an implementation does; no parameter is touched.

        Raises:
            ValueError: If the name is unknown.
        """
        if numerics not in NUMERICS_NAMES:
            known = ', '.join(NUMERICS_NAMES)
            raise ValueError(f"unknown numerics '{numerics}' (known: {known})")
        self.numerics = numerics

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._save_to_state_dict(destination, prefix, *args)
        # No buffer: copies of a model made before its weights were loaded would lack it.
        if self.numerics != 'official':
            number = NUMERICS_NAMES.index(self.numerics)
            destination[prefix + NUMERICS_ENTRY] = torch.tensor(number)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        entry = state_dict.pop(prefix + NUMERICS_ENTRY, None)
        # A state dict without entries of this module says nothing about its numerics.
        if any(name.startswith(prefix) for name in state_dict):
            try:
                self.set_numerics(numerics_of(entry))
            except ValueError as error:
                args[-1].append(str(error))
        super()._load_from_state_dict(state_dict, prefix, *args)
