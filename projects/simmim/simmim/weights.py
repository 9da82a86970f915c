"""Load the weights of a whole masked-image model, ours or the official one."""

from __future__ import annotations

import torch

from swinv2_mm.checkpoint import CheckpointError, LoadReport, load_pretrained
from swinv2_mm.checkpoint.reading import Source, open_weights

from .model import MaskedImageModel

# Ending of a name in a file to our name; the official file has ``encoder.mask_token`` and
# ``decoder.0.weight``, a checkpoint of ours ``mask_token`` and ``neck.decoder.0.weight``.
_BESIDE_THE_BACKBONE = {
    'mask_token': 'mask_token',
    'decoder.0.weight': 'neck.decoder.0.weight',
    'decoder.0.bias': 'neck.decoder.0.bias',
}


def load_simmim(model: MaskedImageModel, source: Source) -> LoadReport:
    """Load encoder, mask token and decoder, from an official SimMIM file or a checkpoint of ours.

    For the encoder alone, which is all that fine-tuning needs, ``load_pretrained`` is enough.

    Args:
        model: Where they go.
        source: As for ``load_pretrained``.

    Raises:
        CheckpointError: If the weights are not those of a masked-image model, or do not fit.
    """
    weights = open_weights(source)
    ready = {}
    for ending, name in _BESIDE_THE_BACKBONE.items():
        found = [key for key in weights.tensors if f'.{key}'.endswith(f'.{ending}')]
        if len(found) != 1:
            raise CheckpointError(
                f'{weights.origin} has {len(found) or "no"} tensors called {ending}: it is no '
                'masked-image model with its decoder'
            )
        value, target = weights.tensors[found[0]], model.get_parameter(name)
        if value.shape != target.shape:
            raise CheckpointError(
                f'{weights.origin}: {found[0]} has the shape {tuple(value.shape)}, the model needs '
                f'{tuple(target.shape)}'
            )
        ready[name] = value
    report = load_pretrained(model, weights)
    with torch.no_grad():
        for name, value in ready.items():
            model.get_parameter(name).copy_(value)
    return report
