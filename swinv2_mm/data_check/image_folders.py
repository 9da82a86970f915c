"""Images in one folder per class, or listed with their class in a text file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .class_names import check_numbering
from .findings import Reporter
from .listing import Entry, Listing, Sample, evenly
from .sources import Source


def read_image_folder(
    source: Source, report: Reporter, *, num_samples: int, advance: Callable[[int], object]
) -> Listing:
    """List the images of every class.

    Args:
        source: A data set of kind ``image folder``.
        report: Takes the faults.
        num_samples: Images to draw.
        advance: Called with the number of images listed.
    """
    folder = source.folders['img_path']
    if source.annotation_file is not None:
        listing = _read_list(source, report, folder=folder)
    else:
        listing = _read_folders(source, report, folder=folder)
    listing.unit = 'images'
    advance(len(listing.entries))
    if not listing.entries:
        report('data-set-empty', source.annotation_file or folder)
    # Listed class by class: even distances show all of them.
    by_class = sorted(listing.entries, key=lambda entry: entry.label)
    listing.samples = [Sample(entry=entry) for entry in evenly(by_class, num_samples)]
    return listing


def _read_folders(source: Source, report: Reporter, *, folder: Path) -> Listing:
    suffixes = tuple(suffix.lower() for suffix in source.settings['extensions'])
    if not source.settings.get('with_label', True):
        listing = Listing()
        _list_images(folder, '', listing, report, suffixes=suffixes)
        return listing
    names = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            names.append(path.name)
            if path.name.startswith('.'):
                report('class-folder-hidden', path)
        elif path.name.lower().endswith(suffixes):
            report('image-outside-folders', path)
    if source.classes is not None and _are_class_names(source.classes, names):
        check_numbering(source.classes, names, report, file=str(folder))
    elif source.classes is not None and len(names) != len(source.classes):
        detail = f'{len(names)} folders, {len(source.classes)} classes'
        report('class-missing', folder, detail=detail)
    # Folder names, not those of the config: they are what the labels come from.
    listing = Listing(classes=tuple(names))
    for name in names:
        _list_images(folder / name, name, listing, report, suffixes=suffixes)
    return listing


def _are_class_names(classes: tuple[str, ...], folders: list[str]) -> bool:
    """Whether folders carry the classes' names, rather than codes such as n01440764."""
    return len(set(classes) & set(folders)) * 2 >= min(len(classes), len(folders))


def _list_images(
    folder: Path, name: str, listing: Listing, report: Reporter, *, suffixes: tuple[str, ...]
) -> None:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(parent, file)
            if file.startswith('.'):
                continue
            if file.lower().endswith(suffixes):
                listing.entries.append(Entry(image=path, label=name))
                listing.counts[name] += 1
            else:
                report('image-other-suffix', path)


def _read_list(source: Source, report: Reporter, *, folder: Path) -> Listing:
    path = source.annotation_file
    listing = Listing(classes=source.classes or ())
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError) as error:
        report('annotation-file-broken', path, detail=str(error))
        return listing
    with_label = source.settings.get('with_label', True)
    if with_label and not listing.classes:
        report('classes-not-named', path, detail='a list of files gives numbers only')
    listed: set[str] = set()
    for number, line in enumerate(lines, start=1):
        place = f'line {number}'
        name, _, label = line.strip().rpartition(' ') if with_label else (line.strip(), '', '')
        if not name or (with_label and not label.lstrip('-').isdecimal()):
            report('line-malformed', path, id=place, detail=repr(line[:80]))
            continue
        if name in listed:
            report('image-listed-twice', path, id=place, detail=name)
        listed.add(name)
        label_name = ''
        if with_label:
            if not 0 <= int(label) < len(listing.classes):
                detail = f'{label}, {len(listing.classes)} classes'
                if listing.classes:
                    report('label-out-of-range', path, id=place, detail=detail)
                    continue
                label_name = label
            else:
                label_name = listing.classes[int(label)]
            listing.counts[label_name] += 1
        listing.entries.append(Entry(image=str(folder / name), id=place, label=label_name))
    return listing
