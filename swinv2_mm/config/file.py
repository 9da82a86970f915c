"""Read a config file, or take a config as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from swinv2_mm.errors import UserError
from swinv2_mm.installed import missing_package
from swinv2_mm.shipped import add_projects_to_path, find_recipe, recipe

from .accepted_keys import closest, top_level_keys
from .options import apply_options
from .packages import register_packages, without_own_scope

_OF_PACKAGE = 'swinv2_mm::'
# Similarity from which a name is a misspelt entry; variables of a config are less similar.
_MISSPELT = 0.87
# Entries of mmdet 2 and its time, which MMEngine passes over in silence, and those that replace
# them. Others, such as ``evaluation``, are left over in configs of the libraries.
_REPLACED = {
    'lr_config': 'param_scheduler',
    'momentum_config': 'param_scheduler',
    'checkpoint_config': 'default_hooks.checkpoint',
    'log_config': 'default_hooks.logger',
    'total_epochs': 'train_cfg.max_epochs',
}


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply ``key=value`` options.

    Args:
        path: A text config, or one of this package such as ``swinv2_mm::detection/NAME.py``.
        options: Such as ``model.backbone.window_size=16``. A key must exist, or be one that its
            object takes; ``+key=value`` adds any other.

    Raises:
        UserError: If the file is missing or not a config, or an option does not fit.
    """
    path = str(path)
    if path.startswith(_OF_PACKAGE):
        path = recipe(path.removeprefix(_OF_PACKAGE))
    if Path(path).is_dir():
        raise UserError(f'config {path} is a folder: name the file in it')
    if not Path(path).is_file():
        ends = ('/'.join(Path(path).parts[-n:]) for n in (2, 3, 4))
        name = next(filter(find_recipe, ends), None)
        hint = f'; that of this package is {_OF_PACKAGE}{name}' if name else ''
        raise UserError(f'config {path} does not exist{hint}')
    add_projects_to_path()
    register_packages()
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        raise UserError(f'config {path}: {_import_failure(error)}') from error
    except OSError as error:
        raise UserError(f'config {path}: {error}') from error
    except Exception as error:
        # The file is Python: whatever it raises is a mistake in it.
        raise UserError(f'config {path} is not valid: {type(error).__name__}: {error}') from error
    without_own_scope(list(cfg.values()))
    _check_names(cfg, path)
    apply_options(cfg, options)
    return cfg


def _import_failure(error: ImportError) -> str:
    """Return why the import of a module that a config names has failed: MMEngine wraps it twice."""
    if isinstance(error, ModuleNotFoundError):
        hint = 'install it, or have PYTHONPATH name the folder that it is in'
        return missing_package(error) or f'{error}; {hint}'
    inner = error.__cause__ or error.__context__
    return _import_failure(inner) if isinstance(inner, ImportError) else str(error)


def _check_names(cfg: Config, path: str) -> None:
    """Raise for an unknown name that is close to that of an entry, or one of older versions."""
    known = top_level_keys()
    for name in cfg:
        if name in _REPLACED:
            raise UserError(
                f"config {path}: nothing reads '{name}', an entry of older versions; write "
                f'{_REPLACED[name]} in its place (docs/migrate.md)'
            )
        if name not in known and (meant := closest(name, known, cutoff=_MISSPELT)):
            raise UserError(
                f"config {path}: nothing reads '{name}'; did you mean '{meant}'? A variable of "
                'your own needs another name'
            )


def as_config(cfg: str | Path | Config, options: Sequence[str] = ()) -> Config:
    """Return a config of one's own: read from a file, or a copy of a given one.

    Raises:
        UserError: As ``load_config`` does.
    """
    if not isinstance(cfg, Config):
        return load_config(str(cfg), options)
    cfg = copy.deepcopy(cfg)
    apply_options(cfg, options)
    return cfg
