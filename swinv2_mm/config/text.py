"""Read the text of a saved config without running it."""

from __future__ import annotations

import ast
from typing import Any

from .options import literal_value

_LARGEST = 4_000_000  # characters; a config has some ten thousand


def parse_config_text(text: Any) -> dict[str, Any]:
    """Return the entries of a config text that are made of literals and ``dict(...)``.

    Checkpoints bring such a text, and may come from anybody: it is never executed, and what
    is not a literal is left out.

    Args:
        text: As MMEngine's ``pretty_text`` writes it; anything else has no entries.
    """
    if not isinstance(text, str) or len(text) > _LARGEST:
        return {}
    found: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                continue
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = literal_value(statement.value, text)
                except (ValueError, TypeError):
                    continue
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return found
