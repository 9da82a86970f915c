"""Find the files that travel with the package: configs, projects, tools and metafiles.

They lie in the hidden folder ``.mim`` of the package, where MMEngine and ``mim`` look for them. In
a clone its entries are symbolic links to the folders of the same names at the project's root.
"""

from __future__ import annotations

import difflib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from swinv2_mm.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def shipped_root() -> Path:
    """Return the folder with ``configs``, ``projects`` and ``tools``."""
    shipped = _PACKAGE / '.mim'
    # A file system without symbolic links has files in their places; then this is a clone.
    return shipped if (shipped / 'configs').is_dir() else _PACKAGE.parent


class _OurProjects:
    """Finder of our ``projects`` where a package of the user has that name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find a project of ours that the user's package does not have."""
        if name.rpartition('.')[0] != 'projects':
            return None
        return PathFinder.find_spec(name, [str(shipped_root() / 'projects')])


def add_projects_to_path() -> None:
    """Let ``custom_imports`` of configs find ``projects``, behind what a user has of that name."""
    root = str(shipped_root())
    if root not in sys.path:
        sys.path.append(root)
    if _OurProjects not in sys.meta_path:
        sys.meta_path.append(_OurProjects)


def find_recipe(name: str) -> Path | None:
    """Return the path of a config of this package, or ``None``: see ``recipe``."""
    paths = (shipped_root() / folder / name for folder in ('configs', 'projects'))
    return next((path for path in paths if path.is_file()), None)


def recipe(name: str) -> str:
    """Return the path of a config of this package, for ``_base_`` of a config in any folder.

    MMEngine evaluates ``_base_`` before anything that a config imports, so ``_base_ =
    __import__('swinv2_mm').recipe('detection/...py')`` works with the tools of every library.

    Args:
        name: Such as ``detection/mask-rcnn_swinv2-t-w16_fpn_1x_coco.py``, of a project
            ``simmim/configs/...py``; the suffix may be left out.

    Raises:
        UserError: If there is no such config.
    """
    if path := find_recipe(name if name.endswith('.py') else f'{name}.py'):
        return path.as_posix()
    root = shipped_root()
    found = [*root.glob('configs/*/*.py'), *root.glob('projects/*/configs/**/*.py')]
    known = sorted(path.relative_to(root).as_posix().partition('/')[2] for path in found)
    close = difflib.get_close_matches(name, known, n=3)
    hint = (
        f'did you mean {" or ".join(close)}?' if close else f'those of this version are in {root}'
    )
    raise UserError(f"there is no recipe '{name}'; {hint}")
