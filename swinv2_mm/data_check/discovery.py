"""Recognise the layout of a data set by its files: what ``swinv2-mm new`` writes into a config."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swinv2_mm.datasets.files import FileFault, read_json
from swinv2_mm.datasets.image_files import read_label_map
from swinv2_mm.errors import DataError, UserError

from .folders import folders_in, image_folders, images_in, subfolders
from .listing import evenly

# Words in the names of files and folders; a test set stands in where there is no validation set.
_SPLITS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}
_CLASS_LISTS = ('classes.txt', 'labels.txt')
_IGNORED = 255
_MAPS_READ = 200


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of a data set; paths are relative to the folder of the set.

    Attributes:
        images: Folder of the images.
        labels: Annotation file, or folder of the label maps; empty for folders of classes.
        num_images: How many images it has.
    """

    images: str
    labels: str = ''
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a data set holds.

    Attributes:
        description: Its format, as shown to the user.
        classes: Names, in the order of their labels.
        train: What to train on.
        val: What to validate and test on.
        has_masks: Whether instances have masks.
        suffixes: Suffixes of images and label maps, where these differ from their common stem.
    """

    description: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    has_masks: bool = False
    suffixes: tuple[str, str] = ('', '')


def discover_detection(root: Path) -> Layout:
    """Recognise COCO-format instances.

    Raises:
        UserError: If there are no annotation files for training and validation.
        DataError: If one of them is malformed, or names images that are nowhere.
    """
    files = {}
    for path in sorted(path for folder in folders_in(root) for path in folder.glob('*.json')):
        if (name := _split_of(path.relative_to(root))) and (content := _coco(path)):
            files.setdefault(name, (path, content))
    names = _chosen(files, root, what='COCO annotation files (JSON with images and annotations)')
    splits = [_coco_split(root, name, *files[name]) for name in names]
    content = files[names[0]][1]
    has_masks = any(entry.get('segmentation') for entry in content['annotations'])
    return Layout(
        description=f'COCO instances with {"masks" if has_masks else "boxes only"}',
        classes=tuple(str(category['name']) for category in content['categories']),
        train=splits[0],
        val=splits[1],
        has_masks=has_masks,
    )


def discover_segmentation(root: Path) -> Layout:
    """Recognise images with label maps of the same names.

    Raises:
        UserError: If there are none for training and validation, or their values are no classes.
    """
    folders: dict[str, list[Path]] = {}
    for folder in image_folders(root):
        if name := _split_of(folder.relative_to(root)):
            folders.setdefault(name, []).append(folder)
    pairs = {name: pair for name, found in folders.items() if (pair := _paired(found))}
    names = _chosen(pairs, root, what='folders of images beside folders of label maps')
    splits, suffixes = [], set()
    for images, maps in (pairs[name] for name in names):
        suffixes.add(_suffixes(images, maps))
        splits.append(
            Split(
                images=_relative(images, root),
                labels=_relative(maps, root),
                num_images=len(images_in(images)),
            )
        )
    if len(suffixes) > 1:
        raise UserError(f'{root}: names of training and validation end differently: {suffixes}')
    return Layout(
        description='label maps',
        classes=_map_classes(root, pairs[names[0]][1]),
        train=splits[0],
        val=splits[1],
        suffixes=suffixes.pop(),
    )


def discover_classification(root: Path) -> Layout:
    """Recognise one folder per class.

    Raises:
        UserError: If there are no such folders for training and validation, or a class to train
            has no images.
    """
    found = {}
    for folder in folders_in(root):
        name = _split_of(Path(folder.name))
        children = subfolders(folder)
        classes = [child for child in children if any(child.iterdir())]
        if name and classes and all(images_in(child) for child in classes):
            if name == 'train' and classes != children:
                empty = next(child for child in children if child not in classes)
                raise UserError(f'{empty}: a class without images; fill the folder or remove it')
            found.setdefault(name, (folder, classes))
    names = _chosen(found, root, what='folders with one folder of images per class')
    splits = [
        Split(
            images=_relative(folder, root),
            num_images=sum(len(images_in(child)) for child in classes),
        )
        for folder, classes in (found[name] for name in names)
    ]
    return Layout(
        description='one folder per class',
        classes=tuple(child.name for child in found[names[0]][1]),
        train=splits[0],
        val=splits[1],
    )


DISCOVERIES = {
    'detection': discover_detection,
    'segmentation': discover_segmentation,
    'classification': discover_classification,
}


def _split_of(path: Path) -> str | None:
    """Return the split that a relative path names, the last part that names one deciding."""
    for part in reversed(path.parts):
        words = re.split('[^a-z]+', part.lower())
        for name, known in _SPLITS.items():
            if not set(known).isdisjoint(words):
                return name
    return None


def _chosen(found: dict[str, Any], root: Path, *, what: str) -> tuple[str, str]:
    """Return the splits to train on and to validate on."""
    val = next((name for name in ('val', 'test') if name in found), None)
    if 'train' in found and val is not None:
        return 'train', val
    raise UserError(
        f'{root}: no {what} for {"training" if "train" not in found else "validation"}; a file or '
        'folder says what it is for by the word train, val or test in its name'
    )


def _coco(path: Path) -> dict | None:
    """Return the content of a COCO annotation file, or ``None`` if a file is something else."""
    try:
        content = read_json(str(path))
    except DataError:
        return None
    lists = ('images', 'annotations', 'categories')
    is_coco = isinstance(content, dict) and all(isinstance(content.get(k), list) for k in lists)
    return content if is_coco else None


def _coco_split(root: Path, name: str, path: Path, content: dict) -> Split:
    try:
        first = content['images'][0]['file_name']
        [category['name'] for category in content['categories']]
    except (IndexError, KeyError, TypeError) as error:
        raise DataError(f'annotation file {path}: no images or names ({error})') from error
    folders = [folder for folder in folders_in(root) if (folder / first).is_file()]
    if not folders:
        raise DataError(f'annotation file {path}: image {first} is nowhere in {root}')
    # Splits may number their images alike.
    folders.sort(key=lambda folder: _split_of(folder.relative_to(root)) != name)
    return Split(
        images=_relative(folders[0], root),
        labels=_relative(path, root),
        num_images=len(content['images']),
    )


def _relative(path: Path, root: Path) -> str:
    text = path.relative_to(root).as_posix()
    return '' if text == '.' else text


def _paired(folders: list[Path]) -> tuple[Path, Path] | None:
    """Return the folder of images and that of their label maps, if these are among ``folders``."""
    maps = [folder for folder in folders if _is_of_maps(folder)]
    images = [folder for folder in folders if folder not in maps]
    shared = {
        (image, label): len(_stems(image) & {_start(name, image) for name in images_in(label)})
        for image in images
        for label in maps
    }
    best = max(shared, key=shared.__getitem__, default=None)
    return best if best is not None and shared[best] else None


def _stems(folder: Path) -> set[str]:
    return {Path(name).stem for name in images_in(folder)}


def _start(name: str, folder: Path) -> str:
    """Return the stem of the image in a folder that the name of a label map begins with."""
    stems = _stems(folder)
    stem = Path(name).stem
    while stem and stem not in stems:
        stem = re.sub(r'[^_.-]*$', '', stem)[:-1] if re.search('[_.-]', stem) else ''
    return stem


def _is_of_maps(folder: Path) -> bool:
    first = images_in(folder)[0]
    try:
        return first.lower().endswith('.png') and read_label_map(str(folder / first)).ndim == 2
    except FileFault:
        return False


def _suffixes(images: Path, maps: Path) -> tuple[str, str]:
    """Return how names of images and label maps end after what they share."""
    endings = Counter(Path(name).suffix for name in images_in(images))
    found = Counter(name[len(_start(name, images)) :] for name in images_in(maps))
    if len(endings) > 1:
        raise UserError(f'{images}: files of several formats ({", ".join(sorted(endings))})')
    return endings.most_common(1)[0][0], found.most_common(1)[0][0]


def _map_classes(root: Path, maps: Path) -> tuple[str, ...]:
    """Return the names in a list of classes, or names made of the values of the label maps."""
    for name in _CLASS_LISTS:
        if (root / name).is_file():
            lines = (root / name).read_text(encoding='utf-8').splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    values = set()
    for name in evenly(images_in(maps), _MAPS_READ):
        values |= set(np.unique(read_label_map(str(maps / name))).tolist())
    if len(values) < 2 or max(values - {_IGNORED}) == 0:
        raise UserError(
            f'label maps in {maps} have the values {sorted(values)}; number n is class n, and '
            f'{_IGNORED} is ignored: save the second class as 1'
        )
    return tuple(f'class_{value}' for value in range(max(values - {_IGNORED}) + 1))
