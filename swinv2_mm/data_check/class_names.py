"""Class names: those of the config against those of the data and the sizes of the heads."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from .findings import Reporter
from .sources import Source

# Parts of a model that number other things than the classes of the data set.
_OTHER_HEADS = ('rpn_head', 'semantic_head')
_SIZES = ('num_classes', 'num_things_classes', 'num_stuff_classes')


def check_config_classes(source: Source, report: Reporter, *, config: str) -> bool:
    """Check the config's list of names by itself; returns whether there is one to go on with."""
    if source.raw_classes is None:
        if source.kind != 'image folder':
            report('classes-not-named', config, id=f'{source.name}, metainfo.classes')
        return source.kind == 'image folder'
    if source.classes is None:
        report(
            'classes-not-a-list',
            config,
            id=f'{source.name}, metainfo.classes',
            detail=repr(source.raw_classes),
        )
        return False
    # ImageNet has two cranes; folders are numbered, whatever their classes are called.
    for name in _repeated(source.classes) if source.kind != 'image folder' else ():
        report('class-repeated', config, id=f'{source.name}, metainfo.classes', detail=repr(name))
    if source.kind == 'label maps' and source.own_classes is not None:
        for name in source.classes:
            if name not in source.own_classes:
                detail = f'{name!r} is not of {source.type_name}'
                report('class-not-of-type', config, id=source.name, detail=detail)
    if source.kind == 'label maps' and source.palette:
        num_colours, num_classes = len(source.palette), len(source.classes)
        if num_colours != num_classes and source.own_classes is None:
            report(
                'palette-length',
                config,
                id=f'{source.name}, metainfo.palette',
                detail=f'{num_colours} colours, {num_classes} classes',
            )
    return True


def check_numbering(
    wanted: Sequence[str], found: Sequence[str], report: Reporter, *, file: str
) -> None:
    """Compare the names of the config with those of the data, both in the order of the labels.

    Args:
        wanted: Of the config.
        found: Of the data.
        report: Takes the faults.
        file: That ``found`` stands in.
    """
    for name in _repeated(found):
        report('class-repeated', file, detail=repr(name))
    missing = [name for name in wanted if name not in found]
    left_out = [name for name in found if name not in wanted]
    for name in missing:
        close = _closest(name, left_out)
        hint = f'; the data has {close!r}' if close else ''
        report('class-missing', file, id=f'class {wanted.index(name)}', detail=repr(name) + hint)
    for name in left_out:
        report('class-left-out', file, detail=repr(name))
    # Of the names that both have: what is missing is reported above.
    in_config = [name for name in wanted if name in found]
    in_data = [name for name in dict.fromkeys(found) if name in wanted]
    for name, own in zip(in_config, in_data, strict=False):
        if name != own:
            detail = f'{name!r} in the config, {own!r} in the data'
            report('class-order', file, id=f'class {wanted.index(name)}', detail=detail)


def check_heads(
    cfg: Config, report: Reporter, *, config: str, num_classes: int, num_things: int | None = None
) -> None:
    """Compare the sizes of the heads with the number of classes.

    Args:
        cfg: A whole config.
        report: Takes the faults.
        config: Its path.
        num_classes: Of the data set.
        num_things: Those of them that are objects, for panoptic data; default all.
    """
    num_things = num_classes if num_things is None else num_things
    expected = dict(zip(_SIZES, (num_classes, num_things, num_classes - num_things), strict=True))
    for path, value in _head_sizes(cfg.get('model') or {}, 'model'):
        right = expected[path.rpartition('.')[2]]
        if value != right:
            report('num-classes', config, id=path, detail=f'is {value}, should be {right}')


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


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def _closest(name: str, others: Sequence[str]) -> str | None:
    """The name that was probably meant, case and separators aside."""
    plain = {other.lower().replace('_', '-').replace(' ', '-'): other for other in others}
    wanted = name.lower().replace('_', '-').replace(' ', '-')
    close = difflib.get_close_matches(wanted, plain, n=1)
    return plain[close[0]] if close else None
