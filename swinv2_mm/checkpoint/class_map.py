"""Map the classes of a model to those of a larger classification head."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .errors import CheckpointError
from .file_checks import check_regular

_MOST_DIGITS = 9

# The 1,000 classes of ImageNet-1K in the released heads of ImageNet-22K, by number: the figures of
# data/map22kto1k.txt in github.com/microsoft/Swin-Transformer (MIT licence).
IMAGENET_22K_TO_1K = Path(__file__).with_name('imagenet22k_to_1k.txt')
# Names of shipped maps in a config: head_class_map = 'imagenet22k-to-1k'.
_SHIPPED = {'imagenet22k-to-1k': IMAGENET_22K_TO_1K}
_RELEASED_CLASSES = (21841, 1000)


def released_class_map(*, num_known: int, num_wanted: int) -> Path | None:
    """Return the map from the classes of a released head to those of a model, if there is one."""
    return IMAGENET_22K_TO_1K if (num_known, num_wanted) == _RELEASED_CLASSES else None


def read_class_map(path: str | os.PathLike[str], *, num_known: int, num_wanted: int) -> Tensor:
    """Read which class of the weights each class of the model is.

    Args:
        path: Text file with a number per class of the model, or ``imagenet22k-to-1k``.
        num_known: Classes of the weights.
        num_wanted: Classes of the model.

    Shapes:
        -> (num_wanted,)

    Raises:
        CheckpointError: If the file cannot be read, or its numbers do not fit.
    """
    file = Path(_SHIPPED.get(str(path), path))
    check_regular(file, what='class map')
    try:
        lines = file.read_text(encoding='utf-8').split()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f'cannot read the class map {path}: {error}') from None
    if len(lines) != num_wanted:
        raise CheckpointError(
            f'the class map {path} has {len(lines)} entries, the model has {num_wanted} classes'
        )
    for number, line in enumerate(lines, start=1):
        is_number = line.isascii() and line.isdecimal() and len(line) <= _MOST_DIGITS
        if not is_number or int(line) >= num_known:
            raise CheckpointError(
                f"entry {number} of the class map {path}, '{line[:20]}', is not a class of the "
                f'weights (0 to {num_known - 1})'
            )
    return torch.tensor([int(line) for line in lines])


def class_folders(source: str | os.PathLike[str]) -> list[str]:
    """Return class names in the order of their numbers.

    Args:
        source: A folder with a sub-folder per class, numbered in the order of their names, or a
            text file with a name per line, in the order of their numbers.

    Raises:
        CheckpointError: If it cannot be read, holds no name, or one twice.
    """
    path = Path(source)
    try:
        if path.is_dir():
            names = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
        else:
            check_regular(path, what='file of class names')
            names = path.read_text(encoding='utf-8').split()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f'cannot read class names from {path}: {error}') from None
    if not names or len(set(names)) != len(names):
        raise CheckpointError(f'{path} has no class names, or one of them twice')
    return names


def match_class_names(
    known: Sequence[str], wanted: Sequence[str], *, substitutes: Mapping[str, str] | None = None
) -> list[int]:
    """Build a class map from the names of classes.

    Args:
        known: Names of the classes of the weights, in the order of the head.
        wanted: Class names of the model.
        substitutes: Name in ``known`` for a name in ``wanted`` that has no class there.

    Returns:
        For each name in ``wanted``, its number in ``known``.

    Raises:
        CheckpointError: If a name has no class in ``known``.
    """
    numbers = {name: number for number, name in enumerate(known)}
    names = [(substitutes or {}).get(name, name) for name in wanted]
    missing = [name for name in names if name not in numbers]
    if missing:
        raise CheckpointError(
            f'{len(missing)} of {len(wanted)} classes are not among those of the weights, such as '
            f"'{missing[0]}': name another class for each (--substitute NAME=OTHER)"
        )
    return [numbers[name] for name in names]
