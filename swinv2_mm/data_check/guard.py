"""Guard a run: validate its annotation files, and wrap its data sets by the policy for bad data."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from swinv2_mm.config.datasets import innermost_datasets
from swinv2_mm.errors import DataError, UserError

from .bad_data import SkippedSummaryHook, policy_of
from .class_names import check_config_classes, check_heads, check_places
from .guarded import GuardedDataset
from .listing import Listing
from .readers import read
from .scoring import check_scoring
from .sources import Source, loads_masks, num_classes_of, source_of, sources_of
from .start_line import start_line, unseen_classes
from .usable import UsableFiles, refuse_whole

# Kinds of data whose classes all heads of a model have; a classifier may have more.
_WITH_HEADS = {'instances', 'label maps'}


def guard_data(runner: Runner, loaders: list[str]) -> None:
    """Check the annotation files of a run, and build its data sets so that they are guarded.

    With ``bad_data='skip'`` the libraries and the metrics read copies of the annotation files
    without what is refused, from the folder ``usable_annotations`` of the work dir. They read
    copies too where classes have another order than ``metainfo.classes``: labels follow names.

    Args:
        runner: Of a config, before it runs.
        loaders: Of ``train``, ``val`` and ``test``; those that the config lacks are skipped.

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
    """Build the data sets of a config with guards around them.

    Args:
        cfg: A whole config.
        work_dir: For the list of what is skipped, and copies of annotation files.
        logger: Takes the start line of each loader, and warnings.
    """

    def __init__(self, cfg: Config, *, work_dir: Path, logger: logging.Logger) -> None:
        self._cfg, self._logger = cfg, logger
        self._files = UsableFiles(cfg, work_dir=work_dir.resolve(), logger=logger)
        self.skipped = self._files.skipped
        self.classes: dict[str, tuple[str, ...]] = {}
        self._train_folders: tuple[str, ...] | None = None

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
            refuse_whole(check_config_classes(source, config='the config'), loader=loader)
            listing, path = self._files.read(source, metrics=metrics)
            found.append(listing)
            if source.kind == 'label maps' and loader == 'train':
                if text := unseen_classes(listing):
                    self._logger.warning(text)
            if source.has_class_folders:
                self._check_folders(listing)
            if path is not None:
                read_files[path] = listing
            if path != source.annotation_file:
                dataset['ann_file'] = str(path)
                if source.classes is None and listing.classes:
                    dataset['metainfo'] = {
                        **(dataset.get('metainfo') or {}),
                        'classes': listing.classes,
                    }
        classes = found[0].source.classes if found else None
        self._files.read_of_metrics(loader, metrics, known=read_files, classes=classes)
        skipped = self.skipped if policy_of(self._cfg, loader) == 'skip' else None
        guarded = GuardedDataset(lambda: DATASETS.build(outer), loader=loader, skipped=skipped)
        lost = guarded.left_out()
        if len(read_files) == 1 and lost:
            ((path, listing),) = read_files.items()
            self._files.leave_out(lost, path, listing, loader=loader, metrics=metrics)
        self._check_heads(loader, guarded, found)
        if loader != 'train':
            check_scoring(loader, guarded, metrics, num_classes=num_classes_of(self._cfg))
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

    def _check_heads(self, loader: str, dataset: GuardedDataset, found: list[Listing]) -> None:
        """Refuse heads for another number of classes than the data has."""
        classes = dataset.metainfo.get('classes') or ()
        if not classes or {listing.source.kind for listing in found} - _WITH_HEADS:
            return
        for problem in check_heads(self._cfg, config='', num_classes=len(classes)):
            raise DataError(
                f'{loader} data set: {len(classes)} classes, and {problem.place} {problem.detail}'
            )

    def _check_folders(self, listing: Listing) -> None:
        """Refuse class folders beyond the model's classes: they would stop the loss."""
        source = listing.source
        if source.name == 'train' and self._train_folders is None:
            self._train_folders = listing.classes
        if source.num_classes is not None and len(listing.classes) > source.num_classes:
            raise DataError(
                f'{source.name} data set: {len(listing.classes)} class folders, the model has '
                f'{source.num_classes} classes (model.head.num_classes)'
            )


class _CheckpointNamesHook(Hook):
    """Compare the class names in a tested or resumed checkpoint with those of the data."""

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


def _train_folders(cfg: Config) -> tuple[str, ...] | None:
    """Return the class folders of the training set, if that is here."""
    try:
        source = next(iter(sources_of(cfg, 'train')), None)
    except UserError:
        return None
    if source is None or not source.has_class_folders or not source.folders['img_path'].is_dir():
        return None
    listing = Listing(source=source)
    list(read(source, listing, is_thorough=False))
    return listing.classes
