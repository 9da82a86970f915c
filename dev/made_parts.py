"""Put what scripts write into pages, between ``<!-- made: NAME -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from swinv2_mm.errors import UserError


def with_made_parts(text: str, parts: Mapping[str, Sequence[str]]) -> str:
    """Return a page with fresh lines for the parts that are named.

    Raises:
        UserError: If the page has no place for one.
    """
    for name, lines in parts.items():
        place = re.compile(rf'(<!-- made: {name} -->\n).*?(<!-- end -->)', re.DOTALL)
        if not place.search(text):
            raise UserError(f"the page has no place for '{name}'")
        body = '\n'.join(lines) + '\n'
        text = place.sub(lambda found, body=body: found[1] + body + found[2], text)
    return text


def made_part(text: str, name: str) -> list[str]:
    """Return the lines of a part.

    Raises:
        UserError: If the page does not have it.
    """
    found = re.search(rf'<!-- made: {name} -->\n(.*?)<!-- end -->', text, re.DOTALL)
    if found is None:
        raise UserError(f"the page has no place for '{name}'")
    return found[1].splitlines()
