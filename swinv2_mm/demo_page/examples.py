"""Offer images of the validation set of a model as examples."""

from __future__ import annotations

from collections import deque
from functools import cache

from swinv2_mm.config.file import load_config
from swinv2_mm.data_check.listing import Listing, evenly
from swinv2_mm.data_check.readers import read
from swinv2_mm.data_check.sources import sources_of
from swinv2_mm.errors import UserError

_MOST_EXAMPLES = 8


@cache
def example_images(config: str) -> tuple[str, ...]:
    """List a few images of the validation set of a config, at even distances.

    Args:
        config: File.

    Returns:
        Paths; none if the data set is not on this machine, or of a kind that cannot be listed.
    """
    listed: list[str] = []
    try:
        for source in sources_of(load_config(config), 'val'):
            listing = Listing(source=source)
            if source.kind:
                deque(read(source, listing, is_thorough=True), maxlen=0)
            listed += [entry.image for entry in listing.entries]
    except (UserError, OSError):
        return ()
    return tuple(evenly(listed, _MOST_EXAMPLES))
