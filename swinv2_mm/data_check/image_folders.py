"""Read image folders: one folder per class, or a text file that lists images with classes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from swinv2_mm.datasets.files import read_lines, shown
from swinv2_mm.datasets.image_files import is_image_name
from swinv2_mm.errors import DataError

from .class_names import are_of_one_kind, nearest, repeated
from .listing import Entry, Listing, Sample, evenly
from .problems import Problem
from .sources import Source

_MAX_DIGITS = 9
_FEW_PAIRS = 3


def read_image_folder(
    source: Source, listing: Listing, *, num_samples: int = 0, lists_images: bool = True
) -> Iterator[Problem]:
    """List the images of every class.

    Labels go by the names of the folders: their place in ``metainfo.classes``, if that names the
    folders, else among the folders of the training set, else in the order of their names, where
    10 comes after 9.
    ``listing.content`` is the list of files in that order, where the library's would differ.

    Args:
        source: A data set of kind ``image folder``.
        listing: Is filled.
        num_samples: Images to draw.
        lists_images: Whether to look into class folders that the library numbers rightly.
    """
    listing.unit = 'images'
    folder = source.folders['img_path']
    if source.annotation_file is not None:
        yield from _read_list(source, listing, folder=folder)
    elif not source.settings.get('with_label', True):
        if lists_images:
            yield from _list_images(source, folder, '', listing)
    else:
        yield from _read_folders(source, listing, folder=folder, lists_images=lists_images)
    if not listing.entries and lists_images:
        yield Problem('data-set-empty', str(source.annotation_file or folder))
    # Listed class by class: even distances show all of them.
    by_class = sorted(listing.entries, key=lambda entry: entry.label) if num_samples else []
    listing.samples = [Sample(entry=entry) for entry in evenly(by_class, num_samples)]


def _read_folders(
    source: Source, listing: Listing, *, folder: Path, lists_images: bool
) -> Iterator[Problem]:
    suffixes = _suffixes(source)
    names = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir():
            names.append(path.name)
            if path.name.startswith('.'):
                yield Problem('class-folder-hidden', str(path))
        elif path.name.lower().endswith(suffixes):
            listing.num_outside += 1
            yield Problem('image-outside-folders', str(path))
    listing.classes = tuple(names)
    wanted, whose = source.classes, 'metainfo.classes'
    if wanted is None or not are_of_one_kind(wanted, names):
        if wanted is not None and len(names) != len(wanted):
            detail = f'{len(names)} folders, {len(wanted)} classes'
            yield Problem('class-missing', str(folder), detail=detail)
        classes, wanted, whose = wanted, source.train_folders, 'the training set'
        if wanted is None and classes is not None:
            wanted = tuple(sorted(names, key=_natural))
            pairs = list(zip(wanted, classes, strict=False))
            listing.remarks += [_pairs_text(pairs)] if pairs else []
    if wanted is not None and tuple(wanted) != tuple(names):
        listing.classes = tuple(wanted)
        listing.is_reordered = True
        for name in repeated(wanted):
            yield Problem('class-repeated', str(folder), detail=repr(name))
        left_out = [name for name in names if name not in wanted]
        for name in left_out:
            detail = f'{name!r}, {whose} lacks it{nearest(name, wanted)}'
            yield Problem('class-folder-unknown', str(folder), detail=detail)
        for name in wanted:
            if name not in names:
                detail = f'lacks {name!r}, which {whose} has{nearest(name, left_out)}'
                yield Problem('class-folders-differ', str(folder), detail=detail)
        in_order = [name for name in dict.fromkeys(wanted) if name in names]
        for own, name in zip(in_order, [n for n in names if n in wanted], strict=True):
            if own != name:
                place = f'class {wanted.index(own)}'
                detail = f'{own!r} in the config, {name!r} in the data'
                yield Problem('class-order', str(folder), place, detail)
    if lists_images or listing.is_reordered:
        for name in names:
            yield from _list_images(source, folder / name, name, listing)
    if listing.is_reordered:
        place_of = {name: number for number, name in enumerate(listing.classes)}
        listing.content = [
            f'{os.path.relpath(entry.image, folder)} {place_of[entry.label]}'
            for entry in listing.entries
            if entry.label in place_of
        ]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which numbers in names are compared as numbers."""
    parts = re.split(r'([0-9]+)', name)
    return [(int(part), '') if number % 2 else (0, part) for number, part in enumerate(parts)]


def _pairs_text(pairs: Sequence[tuple[str, str]]) -> str:
    """Say which class is taken for which folder where the names do not tell."""
    few = [*pairs[:_FEW_PAIRS], *pairs[max(_FEW_PAIRS, len(pairs) - 1) :]]
    shown = ', '.join(f'folder {folder!r} is class {name!r}' for folder, name in few)
    return (
        'metainfo.classes does not name the class folders, which are numbered in the order of '
        f'their names: {shown}'
    )


def _list_images(source: Source, folder: Path, name: str, listing: Listing) -> Iterator[Problem]:
    suffixes = _suffixes(source)
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(parent, file)
            if file.startswith('.'):
                continue
            if file.lower().endswith(suffixes):
                listing.entries.append(Entry(image=path, label=name))
                listing.counts[name] += 1
                continue
            if is_image_name(file):
                listing.other_suffixes[os.path.splitext(file)[1]] += 1
            yield Problem('image-other-suffix', path)


def _suffixes(source: Source) -> tuple[str, ...]:
    return tuple(suffix.lower() for suffix in source.settings['extensions'])


def count_passed_over(listing: Listing) -> None:
    """Count the images in class folders whose suffix the library does not read."""
    source = listing.source
    suffixes = _suffixes(source)
    for _, _, files in os.walk(source.folders['img_path'], followlinks=True):
        for file in files:
            if is_image_name(file) and not file.lower().endswith(suffixes):
                listing.other_suffixes[os.path.splitext(file)[1]] += 1


def _read_list(source: Source, listing: Listing, *, folder: Path) -> Iterator[Problem]:
    path, classes = str(source.annotation_file), source.classes or ()
    listing.classes = classes
    try:
        lines = read_lines(path)
    except DataError as error:
        yield Problem('annotation-file-broken', path, detail=str(error))
        return
    with_label = source.settings.get('with_label', True)
    num_classes = len(classes) or source.num_classes
    if with_label and num_classes is None:
        yield Problem('classes-not-named', path, detail='a list of files gives numbers only')
    listed: set[str] = set()
    contradictions: list[str] = []
    listing.content = []
    for number, line in enumerate(lines, start=1):
        place = f'line {number}'
        name, _, label = line.strip().rpartition(' ') if with_label else (line.strip(), '', '')
        if not name or (with_label and not _is_class_number(label)):
            yield Problem('line-malformed', path, place, repr(line[:80]))
            continue
        if with_label and num_classes is not None and int(label) >= num_classes:
            yield Problem('label-out-of-range', path, place, f'{label}, {num_classes} classes')
            continue
        slashed = listing.with_slashes(name, folder=folder)
        line = f'{slashed}{line.strip()[len(name) :]}'
        name = slashed
        if name in listed:
            yield Problem('image-listed-twice', path, place, name)
        listed.add(name)
        label_name = classes[int(label)] if with_label and classes else label
        named = os.path.basename(os.path.dirname(name))
        if named in classes and named != label_name:
            contradictions.append(f'line {number} lists {name} as {label_name!r}')
        listing.counts[label_name] += with_label
        listing.content.append(line)
        listing.entries.append(Entry(image=str(folder / name), place=place, label=label_name))
    if contradictions:
        listing.remarks.append(
            f'{len(contradictions)} of {len(lines)} lines of {shown(path)} contradict the names of '
            f'folders: {contradictions[0]}; numbers are counted from 0 in metainfo.classes'
        )


def _is_class_number(label: str) -> bool:
    return label.isascii() and label.isdecimal() and len(label) <= _MAX_DIGITS
