"""Find the folders and images of a data set."""

from __future__ import annotations

import os
from pathlib import Path

from swinv2_mm.datasets.image_files import is_image_name


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, links followed; hidden ones are of other programs."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith('.')]
    except PermissionError:
        return []
    return [folder / name for name in sorted(names)]


def folders_in(root: Path, above: tuple[str, ...] = ()) -> list[Path]:
    """Return a folder and those below it, without links to what holds them."""
    real = os.path.realpath(root)
    if any(Path(folder).is_relative_to(real) for folder in above):
        return []
    below = (folders_in(folder, (*above, real)) for folder in subfolders(root))
    return sorted([root, *(folder for folders in below for folder in folders)])


def images_in(folder: Path) -> list[str]:
    """Return the names of the images in a folder."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if is_image_name(e.name) and e.is_file())


def image_folders(root: Path) -> list[Path]:
    """Return the folders with images among a folder and those below it."""
    return [folder for folder in folders_in(root) if images_in(folder)]
