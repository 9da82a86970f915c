"""Register packages for ``_base_ = 'PACKAGE::FOLDER/NAME.py'`` in MMEngine's own table."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE

_OWN = 'swinv2_mm'


def register_packages() -> None:
    """Let configs inherit from this package, and from forks of the OpenMMLab libraries.

    MMEngine's table ``MODULE2PACKAGE`` names the distribution of each library, and MMEngine looks
    for the configs of that. Forks have other distributions, but the same modules: where only the
    module is installed, the table names it instead. Done by ``import swinv2_mm.models``.
    """
    MODULE2PACKAGE[_OWN] = _OWN
    for module, package in MODULE2PACKAGE.items():
        if not _is_distribution(package) and find_spec(module) is not None:
            MODULE2PACKAGE[module] = module


def _is_distribution(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def without_own_scope(value: Any) -> None:
    """Remove the scope that MMEngine gives to entries which a config took from one of ours.

    It takes the package in ``swinv2_mm::...`` for a library with registries of its own; the
    entries of our configs are meant for the library of ``default_scope``.

    Args:
        value: A config, or a part of one; modified in place.
    """
    if isinstance(value, dict):
        if value.get('_scope_') == _OWN:
            del value['_scope_']
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            without_own_scope(item)
