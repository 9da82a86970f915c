"""Name the distribution that a module is installed from: forks have names of their own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, packages_distributions, version


def installed(module: str) -> str:
    """Return the distribution of a module with its version, such as ``onedl-mmcv 2.3.6``."""
    name = packages_distributions().get(module, [module])[0]
    try:
        return f'{name} {version(name)}'
    except PackageNotFoundError:
        return f'no {module}'
