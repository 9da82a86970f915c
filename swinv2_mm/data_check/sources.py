"""Find the data sets of a config: their files, classes and settings."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from swinv2_mm.config.datasets import innermost_datasets
from swinv2_mm.errors import DataError, UserError

# The classes that this package knows how to read, the more special ones first.
_KINDS = {
    'CocoPanopticDataset': 'panoptic',
    'CocoDataset': 'instances',
    'BaseSegDataset': 'label maps',
    'CustomDataset': 'image folder',
}
# Argument of data sets of label maps: whether 0 is ignored and 1 the first class.
ZERO_LABEL = 'reduce_zero_label'


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set.

    Args:
        name: How reports call it: its loaders, such as ``val, test``.
        type_name: Its class.
        kind: A value of ``_KINDS``; empty if it cannot be inspected.
        classes: Names, in the order of the config; ``None`` if the data names them.
        raw_classes: What the config gives as classes, whatever it is.
        own_classes: The names that the class of the data set brings along.
        thing_classes: Object classes of panoptic data.
        palette: One colour per class, or nothing.
        num_classes: Number of classes of the model, where the data does not name its classes.
        train_folders: Class folders of the training set, in the order of their labels.
        annotation_file: Its path, or ``None``.
        folders: ``data_prefix``, joined with the data root.
        settings: Other arguments, defaults included.
        with_masks: Whether its pipeline loads instance masks.
    """

    name: str
    type_name: str
    kind: str
    classes: tuple[str, ...] | None = None
    raw_classes: Any = None
    own_classes: tuple[str, ...] | None = None
    thing_classes: tuple[str, ...] | None = None
    palette: tuple = ()
    num_classes: int | None = None
    train_folders: tuple[str, ...] | None = None
    annotation_file: Path | None = None
    folders: dict[str, Path] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict, repr=False)
    with_masks: bool = False

    @property
    def has_class_folders(self) -> bool:
        """Whether the names of folders are its labels."""
        is_labelled = self.settings.get('with_label', True)
        return self.kind == 'image folder' and self.annotation_file is None and is_labelled

    def reads_same_files(self, other: Source) -> bool:
        """Whether the two are one data set in two loaders."""
        keys = ('type_name', 'raw_classes', 'annotation_file', 'folders', 'with_masks')
        return all(getattr(self, key) == getattr(other, key) for key in keys)


def sources_of(cfg: Config, loader: str) -> Iterator[Source]:
    """List the data sets of a loader (``train``, ``val`` or ``test``), wrappers looked through.

    Raises:
        UserError: If a data set has no known class, or lies on another machine.
    """
    outer = (cfg.get(f'{loader}_dataloader') or {}).get('dataset')
    inner = list(innermost_datasets(outer))
    for number, dataset in enumerate(inner):
        name = f'{loader}[{number}]' if len(inner) > 1 else loader
        scope = cfg.get('default_scope') or 'mmengine'
        source = source_of(dataset, name=name, scope=scope, with_masks=loads_masks(outer))
        yield replace(source, num_classes=configured_num_classes(cfg))


def configured_num_classes(cfg: Config) -> int | None:
    """Return the number of classes of a classifier."""
    return ((cfg.get('model') or {}).get('head') or {}).get('num_classes')


def source_of(dataset: dict, *, name: str, scope: str, with_masks: bool) -> Source:
    """Read the settings of one data set.

    Raises:
        DataError: If its ``metainfo`` is no dictionary.
        UserError: If it has no known class, or lies on another machine.
    """
    cls = _class_of(dataset, scope=scope)
    # A subclass that lists its files in a way of its own cannot be followed.
    lister = next((c.__name__ for c in cls.__mro__ if 'load_data_list' in vars(c)), '')
    names = [c.__name__ for c in cls.__mro__]
    kind = next((k for n, k in _KINDS.items() if n in names), '') if lister in _KINDS else ''
    settings = {**_defaults(cls), **dataset}
    if kind == 'label maps' and (zero := _zero_label_of(dataset.get('pipeline'))) is not None:
        settings[ZERO_LABEL] = zero
    if 'ImageNet' in names[0] and settings.get('split'):
        _follow_split(settings)
    given = settings.get('metainfo') or {}
    if not isinstance(given, Mapping):
        raise DataError(f'{name} data set: metainfo must be dict(classes=(...)), got {given!r}')
    metainfo = {**getattr(cls, 'METAINFO', {}), **given}
    raw = metainfo.get('classes')
    if settings.get('classes') is not None and kind == 'image folder':
        raw = given.get('classes', settings['classes'])
    own = getattr(cls, 'METAINFO', {}).get('classes')
    root = settings.get('data_root') or ''
    prefixes = settings.get('data_prefix') or ''
    if not isinstance(prefixes, dict):
        prefixes = {'img_path': prefixes}
    ann_file = settings.get('ann_file') or ''
    for path in (root, ann_file, *prefixes.values()):
        if '://' in str(path):
            raise UserError(f'{name}: {path} is not on this machine; only local files are checked')
    return Source(
        name=name,
        type_name=names[0],
        kind=kind,
        classes=_names(raw),
        raw_classes=raw,
        own_classes=tuple(own) if own else None,
        thing_classes=_names(metainfo.get('thing_classes')),
        palette=tuple(metainfo.get('palette') or ()),
        annotation_file=Path(os.path.join(root, ann_file)) if ann_file else None,
        folders={k: Path(os.path.join(root, p)) for k, p in prefixes.items() if p is not None},
        settings=settings,
        with_masks=with_masks,
    )


def _class_of(dataset: dict, *, scope: str) -> type:
    name = dataset.get('type')
    if inspect.isclass(name):
        return name
    with DATASETS.switch_scope_and_registry(scope) as registry:
        found = registry.get(name) if isinstance(name, str) else None
    if not inspect.isclass(found):
        raise UserError(f"no library of scope '{scope}' has a data set of type '{name}'")
    return found


def _defaults(cls: type) -> dict[str, Any]:
    """Default arguments of a class and its bases."""
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if '__init__' in vars(base):
            parameters = inspect.signature(base.__init__).parameters
            defaults.update(
                {n: p.default for n, p in parameters.items() if p.default is not p.empty}
            )
    return defaults


def _follow_split(settings: dict[str, Any]) -> None:
    """Set paths as mmpretrain's ImageNet classes do for ``split``."""
    split = settings['split']
    settings['data_prefix'] = settings.get('data_prefix') or split
    listed = os.path.join('meta', f'{split}.txt')
    if not settings.get('ann_file') and os.path.exists(
        os.path.join(settings.get('data_root') or '', listed)
    ):
        settings['ann_file'] = listed
    if split == 'test':
        settings['with_label'] = False


def _zero_label_of(pipeline: Any) -> bool | None:
    """Return what mmseg's loading of label maps sets against its data set, if it does."""
    steps = pipeline if isinstance(pipeline, (list, tuple)) else ()
    for step in steps:
        if isinstance(step, dict) and str(step.get('type')).endswith('LoadAnnotations'):
            return step.get(ZERO_LABEL)
    return None


def _names(raw: Any) -> tuple[str, ...] | None:
    """Return class names from a list, or from a file with one per line, as MMEngine takes them."""
    if isinstance(raw, str) and os.path.isfile(raw):
        return tuple(Path(raw).read_text(encoding='utf-8').splitlines())
    if isinstance(raw, (list, tuple)) and all(isinstance(name, str) for name in raw):
        return tuple(raw)
    return None


def loads_masks(node: Any) -> bool:
    """Whether a pipeline anywhere in the settings of a data set loads instance masks."""
    if isinstance(node, dict):
        return bool(node.get('with_mask')) or any(map(loads_masks, node.values()))
    return isinstance(node, (list, tuple)) and any(map(loads_masks, node))
