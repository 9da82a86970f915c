"""The guard of a run: its annotation files are read first, its data sets refuse what is broken."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.config.datasets import innermost_datasets
from swinv2_mm.datasets.files import shown
from swinv2_mm.errors import DataError, UserError

from .bad_data import SKIPPED_FILE, SkippedList, SkippedSummaryHook, policy_of
from .catalogue import CATALOGUE
from .class_names import check_config_classes
from .guarded import HINT, GuardedDataset
from .listing import Listing
from .problems import Problem
from .readers import read
from .sources import Source, loads_masks, num_classes_of, source_of, sources_of
from .start_line import start_line, unseen_classes

# Problems of a whole data set: there is no entry to leave out.
_OF_ALL = frozenset(
    {
        'annotation-file-broken',
        'class-missing',
        'class-repeated',
        'classes-not-a-list',
        'class-not-of-type',
        'class-folder-hidden',
        'class-folder-unknown',
    }
)

# The libraries say in their own way that nothing is left.
_IN_PART = ('data-set-empty', 'classes-not-named')


def guard_data(runner: Runner, loaders: list[str]) -> None:
    """Check the annotation files of a run, and build its data sets so that they are guarded.

    With ``bad_data='skip'`` the libraries and the metrics read copies of the annotation files
    without what is refused, from the folder ``usable_annotations`` of the work dir. They read
    copies too where classes have another order than ``metainfo.classes``: labels follow names.

    Args:
        runner: Of a config, before it runs.
        loaders: Of ``train``, ``val`` and ``test``; those that the config lacks are passed over.

    Raises:
        DataError: If there is bad data and it is not to be skipped, or nothing is left.
        UserError: If the policy is unknown.
    """
    guard = DataGuard(runner.cfg, work_dir=Path(runner.work_dir), logger=runner.logger)
    for loader in loaders:
        settings = getattr(runner, f'_{loader}_dataloader')
        if isinstance(settings, dict) and isinstance(settings.get('dataset'), dict):
            metrics = getattr(runner, f'_{loader}_evaluator', None)
            settings['dataset'] = guard.build(loader, settings['dataset'], metrics=metrics)
    runner.register_hook(SkippedSummaryHook(guard.skipped))
    runner.register_hook(_CheckpointNamesHook(guard.classes))


def guarded_dataset(cfg: Config, loader: str, *, trained_on: Sequence[str] = ()) -> GuardedDataset:
    """Build the data set of a loader outside of a run, guarded in the same way.

    Args:
        cfg: A whole config.
        loader: ``train``, ``val`` or ``test``.
        trained_on: Class names of the model that predicts for it.

    Raises:
        DataError: As ``guard_data``; also if the names of the model stand for other labels.
    """
    outer = copy.deepcopy(cfg[f'{loader}_dataloader'].dataset)
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
    with TemporaryDirectory() as folder, scope:
        logger = MMLogger.get_current_instance()
        guard = DataGuard(cfg, work_dir=Path(folder), logger=logger)
        dataset = guard.build(loader, outer)
    check_places(trained_on, guard.classes[loader], loader=loader, whose='model')
    return dataset


class DataGuard:
    """Builds the data sets of a config so that they are guarded.

    Args:
        cfg: A whole config.
        work_dir: For the list of what is skipped, and copies of annotation files.
        logger: Takes the start line of each loader, and warnings.
    """

    def __init__(self, cfg: Config, *, work_dir: Path, logger: logging.Logger) -> None:
        self._cfg, self._logger = cfg, logger
        work_dir = work_dir.resolve()
        self._folder = work_dir / 'usable_annotations'
        self.skipped = SkippedList(work_dir / SKIPPED_FILE)
        self.classes: dict[str, tuple[str, ...]] = {}
        self._train_folders: tuple[str, ...] | None = None
        self._num_written = 0

    def build(self, loader: str, outer: dict, *, metrics: Any = ()) -> GuardedDataset:
        """Check and build the data set of a loader.

        Args:
            loader: ``train``, ``val`` or ``test``.
            outer: Settings of the data set; changed.
            metrics: Settings of the metrics, whose annotation files must be those of the data.
        """
        metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
        metrics = [metric for metric in metrics if isinstance(metric, dict)]
        read_files: dict[Path, Listing] = {}
        found = []
        for dataset in innermost_datasets(outer):
            source = self._source(loader, dataset, outer, metrics=metrics)
            if source is None or not source.kind:
                continue
            self._refuse_all(check_config_classes(source, config='the config'), loader=loader)
            listing, path = self._usable(source, metrics=metrics)
            found.append((source, listing))
            if source.kind == 'label maps' and loader == 'train':
                if text := unseen_classes(source, listing):
                    self._logger.warning(text)
            if source.has_class_folders:
                self._check_folders(source, listing)
            if path is not None:
                read_files[path] = listing
            if path != source.annotation_file:
                dataset['ann_file'] = str(path)
                if source.classes is None and listing.classes:
                    dataset['metainfo'] = {
                        **(dataset.get('metainfo') or {}),
                        'classes': listing.classes,
                    }
        self._check_metrics(
            loader, metrics, read_files, classes=found[0][0].classes if found else None
        )
        skipped = self.skipped if policy_of(self._cfg, loader) == 'skip' else None
        guarded = GuardedDataset(lambda: DATASETS.build(outer), loader=loader, skipped=skipped)
        lost = guarded.left_out()
        if len(read_files) == 1 and lost:
            # Images that cannot be read: the metrics must not wait for them.
            ((path, listing),) = read_files.items()
            if isinstance(listing.content, dict):
                _leave_out(listing.content, lost)
                new = self._write(listing.content, f'{loader}-readable-{path.stem}')
                _redirect(metrics, path, new)
        self.classes[loader] = tuple(guarded.metainfo.get('classes') or ())
        if loader != 'train' and 'train' in self.classes:
            check_places(
                self.classes['train'], self.classes[loader], loader=loader, whose='train data set'
            )
        self._logger.info(start_line(loader, guarded, found))
        return guarded

    def _source(
        self, loader: str, dataset: dict, outer: dict, *, metrics: list[dict]
    ) -> Source | None:
        scope = self._cfg.get('default_scope') or 'mmengine'
        with_masks = loads_masks(outer) or any('segm' in str(m.get('metric')) for m in metrics)
        try:
            source = source_of(dataset, name=loader, scope=scope, with_masks=with_masks)
        except UserError:
            # On another machine, or of a class that only its library knows.
            return None
        if source.kind != 'image folder':
            return source
        if loader != 'train' and self._train_folders is None:
            self._train_folders = _train_folders(self._cfg)
        return replace(
            source,
            num_classes=num_classes_of(self._cfg),
            train_folders=self._train_folders if loader != 'train' else None,
        )

    def _usable(
        self, source: Source, *, metrics: list[dict], is_of_metric: bool = False
    ) -> tuple[Listing, Path | None]:
        """Read a data set; return also the annotation file to use: the same one if it is right."""
        loader, path, listing = source.name, source.annotation_file, Listing()
        found = list(read(source, listing, is_thorough=False))
        # The classes of a metric are those of its data set.
        self._refuse_all(
            (p for p in found if not is_of_metric or not p.kind.startswith('class')), loader=loader
        )
        refused = [p for p in found if p.is_refused and p.kind not in (*_OF_ALL, *_IN_PART)]
        if refused:
            message = _message(path, refused)
            if policy_of(self._cfg, loader) != 'skip':
                raise DataError(f'{message}. {HINT}')
            self._logger.warning(f"bad_data='skip': {message}")
            for p in refused if is_main_process() else ():
                self.skipped.add(loader=loader, file=p.file, place=p.place, reason=p.reason)
        elif not listing.is_reordered or not listing.content:
            return listing, path
        if listing.is_reordered:
            where = shown(path or source.folders['img_path'])
            self._logger.warning(
                f'{loader} data set: the classes of {where} have another order than those of the '
                'config, or some are missing: labels follow the class names'
            )
        self._num_written += 1
        usable = self._write(
            listing.content, f'{loader}-{self._num_written}-{(path or Path("folders")).stem}'
        )
        if path is not None:
            _redirect(metrics, path, usable)
        return listing, usable

    def _refuse_all(self, problems: Iterable[Problem], *, loader: str) -> None:
        """Raise an error for the first problem that concerns the whole of a data set."""
        for problem in problems:
            if problem.kind == 'annotation-file-broken':
                raise DataError(problem.detail)
            if problem.kind in _OF_ALL:
                raise DataError(
                    f'{loader} data set: {shown(problem.file)}: {problem.reason}. '
                    f'Fix: {CATALOGUE[problem.kind].remedy}'
                )

    def _check_folders(self, source: Source, listing: Listing) -> None:
        """Class folders beyond the model's classes would stop the loss."""
        if source.name == 'train' and self._train_folders is None:
            self._train_folders = listing.classes
        if source.num_classes is not None and len(listing.classes) > source.num_classes:
            raise DataError(
                f'{source.name} data set: {len(listing.classes)} class folders, the model has '
                f'{source.num_classes} classes (model.head.num_classes)'
            )

    def _check_metrics(
        self,
        loader: str,
        metrics: list[dict],
        read_files: Iterable[Path],
        *,
        classes: tuple[str, ...] | None,
    ) -> None:
        """Check the files that only metrics read."""
        known = {path.resolve() for path in read_files}
        for metric in metrics:
            path = metric.get('ann_file')
            if path and 'Coco' in str(metric['type']) and Path(path).resolve() not in known:
                source = Source(
                    name=loader,
                    type_name='',
                    kind='panoptic' if 'Panoptic' in str(metric['type']) else 'instances',
                    classes=classes,
                    annotation_file=Path(path),
                    with_masks='segm' in str(metric.get('metric')),
                )
                self._usable(source, metrics=metrics, is_of_metric=True)

    def _write(self, content: dict | list[str], name: str) -> Path:
        is_text = isinstance(content, list)
        path = self._folder / f'{name}{".txt" if is_text else ".json"}'
        if is_main_process():
            atomic_write(path, '\n'.join(content) if is_text else json.dumps(content))
        barrier()
        return path


class _CheckpointNamesHook(Hook):
    """Compares the class names of a checkpoint that is tested or resumed with those of the data."""

    def __init__(self, classes: dict[str, tuple[str, ...]]) -> None:
        self._classes = classes

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse names whose places differ."""
        meta = checkpoint.get('meta')
        meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
        names = meta.get('classes') if isinstance(meta, dict) else None
        is_start = 'train' in self._classes and not runner.cfg.get('resume')
        if isinstance(names, (list, tuple)) and not is_start:
            for loader, classes in self._classes.items():
                check_places(names, classes, loader=loader, whose='checkpoint')


def check_places(known: Sequence[str], classes: Sequence[str], *, loader: str, whose: str) -> None:
    """Refuse class names that stand at other places than those the model was trained with.

    Raises:
        DataError: If a name that both lists have stands for two labels.
    """
    place_of = {name: number for number, name in enumerate(known)}
    for number, name in enumerate(classes):
        if place_of.get(name, number) != number and classes.index(name) == number:
            raise DataError(
                f'{loader} data set: class {number} is {name!r}, which is class {place_of[name]} '
                f'of the {whose}: set metainfo.classes to {", ".join(map(repr, known[:4]))}, ...'
            )


def _train_folders(cfg: Config) -> tuple[str, ...] | None:
    """Return the class folders of the training set, if that is here."""
    try:
        source = next(iter(sources_of(cfg, 'train')), None)
    except UserError:
        return None
    if source is None or not source.has_class_folders or not source.folders['img_path'].is_dir():
        return None
    listing = Listing()
    list(read(source, listing, is_thorough=False))
    return listing.classes


def _redirect(metrics: list[dict], old: Path, new: Path) -> None:
    for metric in metrics:
        path = metric.get('ann_file')
        if path and Path(path).resolve() == old.resolve():
            metric['ann_file'] = str(new)


def _leave_out(content: dict, image_ids: set) -> None:
    content['images'] = [i for i in content['images'] if i['id'] not in image_ids]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] not in image_ids]


def _message(path: Path | None, problems: list[Problem]) -> str:
    counts = Counter(problem.kind for problem in problems).most_common()
    listed, first = ', '.join(f'{n} {kind}' for kind, n in counts), problems[0]
    return (
        f'annotation file {shown(path)}: {len(problems)} problems ({listed}); the first: '
        f'{first.place}: {first.reason}. Fix: {CATALOGUE[first.kind].remedy}'
    )
