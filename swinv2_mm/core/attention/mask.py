"""Build the attention mask of shifted and padded windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..tensor_cache import CONSTANTS
from ..window_partition import combine_origins

# Added to the logit of a pair from two sides of the seam of a shifted window. Finite, because
# the released weights were trained with this value.
SEAM_PENALTY = -100.0


def segment_mask(query: Tensor, *, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to the logits of pairs of tokens.

    Real queries never see a padded key (-inf); pairs from two sides of a seam get
    ``SEAM_PENALTY``. Padded queries see something, else their softmax would be NaN; their
    output is cropped.

    Args:
        query: Segment ids, -1 for padding (``WindowGrid.segment_ids``).
        key: The same of the keys.

    Shapes:
        (..., Q), (..., N) -> (..., Q, N)
    """
    query, key = query[..., None], key[..., None, :]
    mask = torch.where(query == key, 0.0, SEAM_PENALTY).to(dtype)
    return mask.masked_fill((query != -1) & (key == -1), -torch.inf)


def attention_mask(
    origins: Sequence[Sequence[int]], *, device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """Return the ``segment_mask`` of a window, or ``None`` where nothing is added.

    Args:
        origins: Origins of the window's tokens along each axis (``AxisRun.origins``).

    Shapes:
        -> (N, N), query by key
    """
    if not any(map(any, origins)):
        return None

    def segments() -> Tensor:
        return combine_origins(*map(torch.tensor, origins)).flatten().to(device)

    def build() -> Tensor:
        ids = segments()
        return segment_mask(ids, key=ids, dtype=dtype)

    key = (*map(tuple, origins), device)
    if device.type == 'cpu':
        return CONSTANTS.get(('mask', *key, dtype), build)
    # N numbers are kept there and compared at each use: masks of N x N would fill the cache, and a
    # copy from the host waits for the device.
    ids = CONSTANTS.get(('segments', *key), segments)
    return segment_mask(ids, key=ids, dtype=dtype)
