"""Reading a config and changing it from the command line, with the mistakes caught early."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine import registry
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner

from swinv2_mm.errors import DataError, UserError

_ROOT = str(Path(__file__).resolve().parents[2])
# Entries of ours that a config need not have (docs/scaling.md).
_OWN = {'parallel', 'accumulate', 'precision'}
# Dictionaries whose keys are names that the user makes up.
_FREE_FORM = ('default_hooks', 'custom_keys', 'vis_backends', 'metainfo')


def load_config(path: str, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply ``key=value`` options.

    Args:
        path: A text config.
        options: Such as ``model.backbone.window_size=16``. A key must exist, or be one that its
            object takes; ``+key=value`` adds any other.

    Raises:
        UserError: If the file is missing or not a config, or an option does not fit.
    """
    if not Path(path).is_file():
        raise UserError(f'config {path} does not exist')
    # The code that configs of projects/ import lies beside this package.
    if _ROOT not in sys.path:
        sys.path.append(_ROOT)
    try:
        cfg = Config.fromfile(path)
    except (ImportError, OSError) as error:
        raise UserError(f'config {path}: {error}') from error
    except Exception as error:
        # The file is Python: whatever it raises is a mistake in it.
        raise UserError(f'config {path} is not valid: {type(error).__name__}: {error}') from error
    apply_options(cfg, options)
    return cfg


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


def check_data(cfg: Config, loaders: Iterable[str]) -> None:
    """Check that the files which the named data loaders read exist.

    Args:
        cfg: A whole config.
        loaders: Such as ``train_dataloader``; those that the config lacks are passed over.

    Raises:
        DataError: If a data root, an annotation file or an image folder is missing.
    """
    for loader in loaders:
        for dataset in innermost_datasets((cfg.get(loader) or {}).get('dataset')):
            for kind, path in _dataset_paths(dataset):
                if not os.path.exists(path):
                    raise DataError(
                        f'{loader}: {kind} {path} does not exist. Set the environment variable '
                        'SWINV2_DATA to the folder that holds your data sets, or change '
                        f'{loader}.dataset in the config'
                    )


def annotation_files(cfg: Config) -> Iterator[str]:
    """List the annotation files of all data loaders and evaluators."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in innermost_datasets((cfg.get(loader) or {}).get('dataset')):
            yield from (path for kind, path in _dataset_paths(dataset) if kind == 'annotation file')


def innermost_datasets(dataset: Any) -> Iterator[dict]:
    """Look through wrappers (repeat, concatenate, ...) at the data sets inside."""
    if not dataset:
        return
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is None:
        yield dataset
    for entry in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from innermost_datasets(entry)


def _dataset_paths(dataset: dict) -> Iterator[tuple[str, str]]:
    root = dataset.get('data_root') or ''
    if '://' in root:
        return
    if root:
        yield 'data root', root
    if dataset.get('ann_file'):
        yield 'annotation file', os.path.join(root, dataset['ann_file'])
    prefixes = dataset.get('data_prefix') or {}
    for prefix in prefixes.values() if isinstance(prefixes, dict) else [prefixes]:
        if isinstance(prefix, str) and '://' not in prefix:
            yield 'folder', os.path.join(root, prefix)
