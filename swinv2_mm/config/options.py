"""Override config entries by ``--cfg-options``, and refuse keys that no class accepts."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from swinv2_mm.errors import UserError

from .accepted_keys import accepted_keys, closest

_WORDS = {'true': True, 'false': False}


def apply_options(cfg: Config, options: Sequence[str]) -> None:
    """Change a config by ``key=value`` options, as ``load_config`` describes them.

    MMEngine imports what ``custom_imports`` names when it reads a file: what an option names is
    imported here.

    Raises:
        UserError: If an option does not fit.
    """
    changes = {}
    for option in options:
        key, separator, value = option.partition('=')
        if not separator or not key.strip('+'):
            raise UserError(f"--cfg-options takes key=value, got '{option}'")
        if not key.startswith('+'):
            _check_key(cfg, key)
        changes[key.lstrip('+')] = parse_value(value)
    try:
        cfg.merge_from_dict(changes)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options: {error}') from error
    if any(key.split('.')[0] == 'custom_imports' for key in changes):
        try:
            import_modules_from_strings(**cfg.custom_imports)
        except (ImportError, TypeError) as error:
            raise UserError(f'--cfg-options: custom_imports: {error}') from error


def parse_value(text: str) -> Any:
    """Read the value of an option.

    It may be a Python literal; ``dict(...)``, lists and tuples, one inside the other; words
    without quotes; and, for a list of words, what commas separate.

    Raises:
        UserError: If it is none of these.
    """
    try:
        return _evaluated(text.strip())
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"--cfg-options: cannot read the value '{text}'") from error


def _evaluated(text: str) -> Any:
    try:
        node = ast.parse(text, mode='eval').body
        # To Python, what follows a # is a comment.
        is_whole = '#' not in text or ast.get_source_segment(text, node) == text
    except SyntaxError:
        is_whole = False
    if is_whole and not isinstance(node, (ast.BinOp, ast.Attribute)):
        try:
            return literal_value(node, text)
        except ValueError:
            if isinstance(node, ast.Call):
                raise
    pieces = list(_split(text))
    if text[:1] in '([' and text[-1:] == {'(': ')', '[': ']'}.get(text[:1]):
        pieces = list(_split(text[1:-1]))
        return (tuple if text[0] == '(' else list)(map(_evaluated, pieces))
    if len(pieces) > 1:
        return [_evaluated(piece) for piece in pieces]
    if text.startswith(('dict(', '{')):
        raise ValueError(text)
    return text


def literal_value(node: ast.expr, text: str) -> Any:
    """Return what an expression of literals, words, ``dict(...)`` and lists stands for."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    if isinstance(node, ast.Name):
        if node.id.lower() in _WORDS:
            return _WORDS[node.id.lower()]
        try:
            return float(node.id)  # nan, inf
        except ValueError:
            return node.id
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [literal_value(element, text) for element in node.elts]
        is_tuple = isinstance(node, ast.Tuple) and ast.get_source_segment(text, node)[0] == '('
        return tuple(values) if is_tuple else values
    if isinstance(node, ast.Dict) and None not in node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return {ast.literal_eval(key): literal_value(value, text) for key, value in pairs}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if not node.args and all(keyword.arg for keyword in node.keywords):
            return {keyword.arg: literal_value(keyword.value, text) for keyword in node.keywords}
    # A name with dots, or with dashes, inside something larger.
    if isinstance(node, (ast.Attribute, ast.BinOp)):
        return ast.get_source_segment(text, node)
    raise ValueError(ast.dump(node))


def _split(text: str) -> Iterator[str]:
    """Split at the commas outside of brackets."""
    depth = start = 0
    for at, character in enumerate(text):
        depth += (character in '([{') - (character in ')]}')
        if depth < 0:
            raise ValueError(text)
        if character == ',' and depth == 0:
            yield text[start:at].strip()
            start = at + 1
    if depth:
        raise ValueError(text)
    if last := text[start:].strip():
        yield last


def _check_key(cfg: Config, key: str) -> None:
    node: Any = cfg
    parts = key.split('.')
    for depth, part in enumerate(parts):
        if isinstance(node, (list, tuple)):
            if not part.isdecimal() or int(part) >= len(node):
                where = '.'.join(parts[:depth])
                raise UserError(f"--cfg-options: '{where}' is a list of {len(node)}, not '{part}'")
            node = node[int(part)]
        elif (isinstance(node, dict) and part in node) or (node is cfg and part in cfg):
            node = node[part]
        else:
            allowed = accepted_keys(cfg, node, parts[:depth])
            if allowed is not None and part not in allowed:
                meant = closest(part, allowed)
                hint = f"; did you mean '{'.'.join([*parts[:depth], meant])}'?" if meant else ''
                raise UserError(
                    f"--cfg-options: the config has no '{key}'{hint} (write '+{key}=...' to add it)"
                )
            return
