"""Find and count the images of a data set with one folder per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swinv2_mm.datasets.image_files import is_image_name
from swinv2_mm.errors import DataError


@dataclass(frozen=True)
class ImageFolders:
    """Images in ``train/CLASS`` and ``val/CLASS`` under one folder.

    Attributes:
        root: The folder.
        classes: Names of the classes.
        num_train: Images to train on.
        num_val: Images to test on.
        largest_class: Images to test on that belong to the most frequent class.
    """

    root: Path
    classes: tuple[str, ...]
    num_train: int
    num_val: int
    largest_class: int

    @property
    def chance_percent(self) -> float:
        """Top-1 accuracy of always naming the most frequent class."""
        return 100 * self.largest_class / self.num_val


def find_images(root: Path) -> ImageFolders:
    """Count the images of a data set.

    Raises:
        DataError: If a folder is missing or empty, or the two splits differ in classes.
    """
    counts = {}
    for split in ('train', 'val'):
        folder = root / split
        if not folder.is_dir():
            raise DataError(
                f'--data-root {root}: there is no folder {folder}; images are expected in '
                'train/CLASS and val/CLASS'
            )
        counts[split] = {
            inner.name: sum(is_image_name(p.name) for p in inner.rglob('*'))
            for inner in sorted(folder.iterdir())
            if inner.is_dir()
        }
        empty = [name for name, count in counts[split].items() if not count]
        if empty or len(counts[split]) < 2:
            what = f'{empty[0]} holds no image' if empty else 'fewer than two classes'
            raise DataError(f'--data-root {root}: {what} in {folder}')
    different = sorted(counts['train'].keys() ^ counts['val'].keys())
    if different:
        raise DataError(f'--data-root {root}: {different[0]} is a class of one split only')
    return ImageFolders(
        root,
        tuple(counts['train']),
        sum(counts['train'].values()),
        sum(counts['val'].values()),
        max(counts['val'].values()),
    )
