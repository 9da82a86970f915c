"""Validate the class names of a config against the data and the heads."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from swinv2_mm.config.accepted_keys import closest
from swinv2_mm.errors import DataError

from .problems import Problem
from .sources import Source

# Heads whose number of classes is not that of the data set.
_OTHER_HEADS = ('rpn_head', 'semantic_head')
# Entries of ``metainfo``, which MMEngine takes whatever their names.
_METAINFO = ('classes', 'palette', 'thing_classes', 'stuff_classes')
_MISSPELT = 0.8
_SIZES = ('num_classes', 'num_things_classes', 'num_stuff_classes')


def check_config_classes(source: Source, *, config: str) -> Iterator[Problem]:
    """Check the config's list of names by itself."""
    place = f'{source.name}, metainfo.classes'
    given = source.settings.get('metainfo') or {}
    for name in given:
        meant = closest(str(name).lower(), _METAINFO, cutoff=_MISSPELT)
        if 'classes' not in given and str(name).lower().startswith('class'):
            meant = 'classes'
        if name not in _METAINFO and meant:
            yield Problem('classes-misspelt', config, place, f'{name!r}; did you mean {meant!r}?')
    if source.raw_classes is None:
        if source.kind != 'image folder':
            yield Problem('classes-not-named', config, place)
        return
    if source.classes is None:
        yield Problem('classes-not-a-list', config, place, repr(source.raw_classes))
        return
    # ImageNet has two cranes; folders are numbered, whatever their classes are called.
    for name in repeated(source.classes) if source.kind != 'image folder' else ():
        yield Problem('class-repeated', config, place, repr(name))
    if source.kind != 'label maps':
        return
    for name in source.classes if source.own_classes is not None else ():
        if name not in source.own_classes:
            detail = f'{name!r} is not of {source.type_name}'
            yield Problem('class-not-of-type', config, source.name, detail)
    num_colours, num_classes = len(source.palette), len(source.classes)
    if num_colours not in (0, num_classes) and source.own_classes is None:
        detail = f'{num_colours} colours, {num_classes} classes'
        yield Problem('palette-length', config, f'{source.name}, metainfo.palette', detail)


def compare_names(wanted: Sequence[str], found: Sequence[str], *, file: str) -> Iterator[Problem]:
    """Compare the names of the config with those of the data, both in the order of the labels."""
    for name in repeated([name for name in found if name in wanted]):
        yield Problem('class-repeated', file, detail=repr(name))
    left_out = [name for name in found if name not in wanted]
    for name in wanted:
        if name not in found:
            detail = repr(name) + nearest(name, left_out)
            yield Problem('class-missing', file, f'class {wanted.index(name)}', detail)
    for name in left_out:
        yield Problem('class-left-out', file, detail=repr(name))
    # Only names that both have are compared: what is missing is reported above.
    in_config = [name for name in wanted if name in found]
    in_data = [name for name in dict.fromkeys(found) if name in wanted]
    for name, own in zip(in_config, in_data, strict=False):
        if name != own:
            detail = f'{name!r} in the config, {own!r} in the data'
            yield Problem('class-order', file, f'class {wanted.index(name)}', detail)


def check_places(known: Sequence[str], classes: Sequence[str], *, loader: str, whose: str) -> str:
    """Refuse class names that have other numbers than in the model's training.

    Names that differ in case, blanks and separators only are one.

    Returns:
        A warning if classes have other names there, or nothing.

    Raises:
        DataError: If a name that both lists have stands for two labels.
    """
    own, other = [_plain(name) for name in classes], [_plain(name) for name in known]
    # ImageNet has two cranes.
    names = set(other) - {*repeated(own), *repeated(other)}
    place_of = {name: number for number, name in enumerate(other) if name in names}
    for number, name in enumerate(own):
        if place_of.get(name, number) != number:
            raise DataError(
                f'{loader} data set: class {number} is {classes[number]!r}, which is class '
                f'{place_of[name]} of the {whose}: set metainfo.classes to '
                f'{", ".join(map(repr, known[:4]))}, ...'
            )
    pairs = list(zip(own, other, strict=False))
    renamed = [number for number, (name, old) in enumerate(pairs) if name != old]
    if not renamed:
        return ''
    first = renamed[0]
    return (
        f'{loader} data set: {len(renamed)} of {len(pairs)} classes have another name in the '
        f'{whose}, such as class {first}, here {classes[first]!r}, there {known[first]!r}: labels '
        'go by the number'
    )


def nearest(name: str, others: Sequence[str]) -> str:
    """Return ``; did you mean 'NAME'?`` for a name that is close, or nothing."""
    plain = {_plain(other): other for other in others}
    close = difflib.get_close_matches(_plain(name), plain, n=1)
    return f'; did you mean {plain[close[0]]!r}?' if close else ''


def repeated(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once."""
    return [name for name, times in Counter(names).items() if times > 1]


def are_of_one_kind(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether two lists share a name, but for its case: folders may be codes (n01440764)."""
    return not set(map(_plain, names)).isdisjoint(map(_plain, others))


def check_heads(
    cfg: Config, *, config: str, num_classes: int, num_things: int | None = None
) -> Iterator[Problem]:
    """Compare the sizes of the heads with the number of classes.

    Args:
        cfg: A whole config.
        config: Its path.
        num_classes: Number of classes of the data set.
        num_things: Number of object classes among them, for panoptic data; default all.
    """
    num_things = num_classes if num_things is None else num_things
    expected = dict(zip(_SIZES, (num_classes, num_things, num_classes - num_things), strict=True))
    for path, value in _head_sizes(cfg.get('model') or {}, 'model'):
        right = expected[path.rpartition('.')[2]]
        if value != right:
            yield Problem('num-classes', config, path, f'is {value}, should be {right}')


def _head_sizes(node: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _SIZES and isinstance(value, int):
                yield f'{path}.{key}', value
            elif key not in _OTHER_HEADS:
                yield from _head_sizes(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for number, entry in enumerate(node):
            yield from _head_sizes(entry, f'{path}.{number}')


def _plain(name: str) -> str:
    """Return a name without its case and separators."""
    return name.strip().lower().replace('_', '-').replace(' ', '-')
