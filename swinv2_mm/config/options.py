"""Change a config by ``--cfg-options``, and refuse what no class takes."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from mmengine import registry
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner

from swinv2_mm.errors import UserError

# Entries of ours that a config need not have (docs/scaling.md).
_OWN = {'parallel', 'accumulate', 'precision'}
# Dictionaries whose keys are names that the user makes up.
_FREE_FORM = ('default_hooks', 'custom_keys', 'vis_backends', 'metainfo')


def apply_options(cfg: Config, options: Sequence[str]) -> None:
    """Change a config by ``key=value`` options, as ``load_config`` describes them.

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
        changes[key.lstrip('+')] = _parse_value(value)
    try:
        cfg.merge_from_dict(changes)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options: {error}') from error


def _parse_value(text: str) -> Any:
    """Read the value of an option: a Python literal, ``dict(...)``, or MMEngine's short forms."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        node = ast.parse(text, mode='eval').body
    except SyntaxError:
        node = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if not node.args and all(keyword.arg for keyword in node.keywords):
            return {k.arg: _parse_value(ast.unparse(k.value)) for k in node.keywords}
    try:
        return DictAction._parse_iterable(text)
    except (AssertionError, RecursionError) as error:
        raise UserError(f"--cfg-options: cannot read the value '{text}'") from error


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
            allowed = _accepted_keys(cfg, node, parts[:depth])
            if allowed is not None and part not in allowed:
                close = difflib.get_close_matches(part, allowed, n=1)
                hint = f"; did you mean '{'.'.join([*parts[:depth], close[0]])}'?" if close else ''
                raise UserError(
                    f"--cfg-options: the config has no '{key}'{hint} (write '+{key}=...' to add it)"
                )
            return


def _accepted_keys(cfg: Config, node: Any, path: list[str]) -> set[str] | None:
    """Keys that may be set at ``node``; ``None`` if any may."""
    if not path:
        return set(inspect.signature(Runner.__init__).parameters) - {'self'} | set(cfg) | _OWN
    if path[-1] in _FREE_FORM:
        return None
    if not isinstance(node, dict):
        return set()
    taken = _constructor_arguments(cfg, node.get('type'))
    return set(node) | taken if taken is not None else set(node)


def _constructor_arguments(cfg: Config, name: Any) -> set[str] | None:
    """Arguments of the registered class ``name`` and its bases; ``None`` if there is no such."""
    if not isinstance(name, str):
        return None
    if not DefaultScope.check_instance_created('options'):
        DefaultScope.get_instance('options', scope_name=cfg.get('default_scope', 'mmengine'))
    for root in vars(registry).values():
        if isinstance(root, Registry):
            with root.switch_scope_and_registry(cfg.get('default_scope')) as scoped:
                found = scoped.get(name)
            if inspect.isclass(found):
                return {
                    argument
                    for base in found.__mro__
                    if '__init__' in vars(base)
                    for argument in inspect.signature(base.__init__).parameters
                } | {'type'}
    return None
