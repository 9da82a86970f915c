"""Guard a run: validate its annotation files, and wrap its data sets by the policy for bad data."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from swinv2_mm.config.datasets import innermost_datasets, metrics_of
from swinv2_mm.errors import DataError, UserError

from .bad_data import SkippedSummaryHook, policy_of
from .class_counts import check_folder_count, check_head_counts, check_labels_are_read
from .class_names import check_config_classes, check_places
from .guarded import GuardedDataset
from .listing import Listing
from .readers import read
from .scoring import check_scoring
from .sources import ZERO_LABEL, Source, configured_num_classes, loads_masks, source_of, sources_of
from .start_line import MOST_IMAGES, start_line, unseen_classes
from .usable import UsableFiles, refuse_whole


def guard_data(runner: Runner, loaders: list[str]) -> None:
    """Check the annotation files of a run, and build its data sets so that they are guarded.

    With ``bad_data='skip'`` the libraries and the metrics read copies of the annotation files
    without what is refused, from the folder ``usable_annotations`` of the work dir. They read
    copies too where classes have another order than ``metainfo.classes``: labels follow names.

    Args:
        runner: The Runner, before it runs.
        loaders: Some of ``train``, ``val`` and ``test``; those that the config lacks are skipped.

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
    runner.register_hook(_CheckpointNamesHook(guard))


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
    guard.compare({'classes': trained_on}, loader=loader, whose='model')
    return dataset


class DataGuard:
    """Build the data sets of a config with guards around them.

    Args:
        cfg: A whole config.
        work_dir: Folder for the list of what is skipped and for copies of annotation files.
        logger: Takes the start line of each loader, and warnings.
    """

    def __init__(self, cfg: Config, *, work_dir: Path, logger: logging.Logger) -> None:
        self._cfg, self._logger = cfg, logger
        self._files = UsableFiles(cfg, work_dir=work_dir.resolve(), logger=logger)
        self.skipped = self._files.skipped
        self.known: dict[str, dict[str, Any]] = {}
        self._train_images: frozenset[str] = frozenset()
        self._train_folders: tuple[str, ...] | None = None

    def build(self, loader: str, outer: dict, *, metrics: Any = ()) -> GuardedDataset:
        """Check and build the data set of a loader.

        Args:
            loader: ``train``, ``val`` or ``test``.
            outer: Settings of the data set; changed.
            metrics: Settings of the evaluator; annotation files must be those of the data.
        """
        is_by_part = isinstance(metrics, dict) and 'dataset_prefixes' in metrics
        metrics = metrics_of(metrics)
        read_files: dict[Path, Listing] = {}
        found = []
        for dataset in innermost_datasets(outer):
            source = self._source(loader, dataset, outer, metrics=metrics)
            if source is None or not source.kind:
                continue
            refuse_whole(check_config_classes(source, config='the config'), loader=loader)
            check_labels_are_read(self._cfg, source)
            listing, path = self._files.read(source, metrics=metrics)
            found.append(listing)
            for remark in listing.remarks:
                self._logger.warning(f'{loader} data set: {remark}')
            if source.has_class_folders:
                if source.name == 'train' and self._train_folders is None:
                    self._train_folders = listing.classes
                if text := check_folder_count(listing):
                    self._logger.warning(text)
            if path is not None:
                read_files[path] = listing
            if path != source.annotation_file:
                dataset['ann_file'] = str(path)
                if source.classes is None and listing.classes:
                    dataset['metainfo'] = {
                        **(dataset.get('metainfo') or {}),
                        'classes': listing.classes,
                    }
        of_data = found[0].source if found else None
        self._files.read_of_metrics(loader, metrics, known=read_files, of_data=of_data)
        skipped = self.skipped if policy_of(self._cfg, loader) == 'skip' else None
        guarded = GuardedDataset(lambda: DATASETS.build(outer), loader=loader, skipped=skipped)
        lost = guarded.left_out()
        if len(read_files) == 1 and lost:
            ((path, listing),) = read_files.items()
            self._files.leave_out(lost, path, listing, loader=loader, metrics=metrics)
        check_head_counts(self._cfg, loader, guarded.metainfo, found)
        are_boxes = found and all(listing.source.kind == 'instances' for listing in found)
        if loader == 'train' and are_boxes and not any(listing.counts for listing in found):
            raise DataError(
                'train data set: it holds no instance of its classes to learn from: look at it '
                'with tools/dataset.py check'
            )
        if loader != 'train':
            check_scoring(
                loader,
                guarded,
                metrics,
                num_classes=configured_num_classes(self._cfg),
                is_by_part=is_by_part,
            )
        self.known[loader] = {
            'classes': tuple(guarded.metainfo.get('classes') or ()),
            ZERO_LABEL: _reduces_zero(loader, found),
        }
        if loader == 'train':
            self._train_images = _image_paths(guarded)
        elif 'train' in self.known:
            self.compare(self.known['train'], loader=loader, whose='train data set')
            images = _image_paths(guarded)
            if shared := len(images & self._train_images):
                self._logger.warning(
                    f'{loader} data set: {shared} of its {len(images)} images are trained on too, '
                    'so that scores will be too good'
                )
        for listing in found:
            if listing.source.kind == 'label maps' and (text := unseen_classes(listing)):
                self._logger.warning(text)
        self._logger.info(start_line(loader, guarded, found))
        return guarded

    def compare(self, trained_on: Mapping[str, Any], *, loader: str, whose: str) -> None:
        """Compare the labels of a loader with those that a model was trained on.

        Args:
            trained_on: ``metainfo`` of a data set.
            loader: One that has been built.
            whose: What ``trained_on`` is of, for messages.

        Raises:
            DataError: If names stand for other labels, or labels of maps are counted from
                another value.
        """
        own = self.known[loader]
        names = trained_on.get('classes')
        if isinstance(names, (list, tuple)):
            text = check_places(list(map(str, names)), own['classes'], loader=loader, whose=whose)
            if text:
                self._logger.warning(text)
        old, new = trained_on.get(ZERO_LABEL), own[ZERO_LABEL]
        if isinstance(old, bool) and new is not None and old != new:
            raise DataError(
                f'{loader} data set: {ZERO_LABEL} is {new}, and that of the {whose} {old}: every '
                f'label would be that of another class: set dataset.{ZERO_LABEL}={old}'
            )

    def _source(
        self, loader: str, dataset: dict, outer: dict, *, metrics: list[dict]
    ) -> Source | None:
        scope = self._cfg.get('default_scope') or 'mmengine'
        with_masks = loads_masks(outer) or any('segm' in str(m.get('metric')) for m in metrics)
        try:
            source = source_of(dataset, name=loader, scope=scope, with_masks=with_masks)
        except DataError:
            raise
        except UserError:
            # On another machine, or of a class that only its library knows.
            return None
        if source.kind != 'image folder':
            return source
        if loader != 'train' and self._train_folders is None:
            self._train_folders = _train_folders(self._cfg)
        return replace(
            source,
            num_classes=configured_num_classes(self._cfg),
            # A data set that is joined with others has the folders of the first.
            train_folders=self._train_folders,
        )


class _CheckpointNamesHook(Hook):
    """Compare the labels of a checkpoint that is tested or resumed with those of the data."""

    def __init__(self, guard: DataGuard) -> None:
        self._guard = guard

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse labels that differ; a training may start from a model of others."""
        meta = checkpoint.get('meta')
        meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
        is_start = 'train' in self._guard.known and not runner.cfg.get('resume')
        for loader in self._guard.known if isinstance(meta, dict) else ():
            try:
                self._guard.compare(meta, loader=loader, whose='checkpoint')
            except DataError as error:
                if not is_start:
                    raise
                if loader == 'train':
                    runner.logger.warning(f'{error}; the training begins with its head')


def _image_paths(dataset: GuardedDataset) -> frozenset[str]:
    """Return the images of a data set, if they are not too many to be listed."""
    if len(dataset) > MOST_IMAGES or not hasattr(dataset.dataset, 'get_data_info'):
        return frozenset()
    paths = (dataset.get_data_info(index).get('img_path') for index in range(len(dataset)))
    return frozenset(os.path.normpath(path) for path in paths if isinstance(path, str))


def _reduces_zero(loader: str, found: Sequence[Listing]) -> bool | None:
    """Return whether label maps number the classes from 1; ``None`` without label maps."""
    values = {
        bool(listing.source.settings.get(ZERO_LABEL))
        for listing in found
        if listing.source.kind == 'label maps'
    }
    if len(values) > 1:
        raise DataError(f'{loader} data set: {ZERO_LABEL} is True in one part, False in another')
    return values.pop() if values else None


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
