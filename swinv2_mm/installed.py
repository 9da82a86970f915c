"""Name the distribution that a module is installed from: forks have names of their own."""

from __future__ import annotations

from importlib.metadata import (
    PackageNotFoundError,
    distributions,
    packages_distributions,
    version,
)


def installed(module: str) -> str:
    """Return the distribution of a module with its version, such as ``onedl-mmcv 2.3.6``."""
    names = packages_distributions().get(module) or _by_files(module) or [module]
    try:
        return f'{names[0]} {version(names[0])}'
    except PackageNotFoundError:
        return f'no {module}'


def _by_files(module: str) -> list[str]:
    """Return what ``packages_distributions`` of Python 3.10 does not see."""
    start = f'{module}/__init__.py'
    return [
        found.metadata['Name']
        for found in distributions()
        if any(file.as_posix() == start for file in found.files or ())
    ]
