"""Find the data sets and metrics inside a config, and the files that they name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from swinv2_mm.errors import DataError


def check_data(cfg: Config, loaders: Iterable[str]) -> None:
    """Check that the files which the named data loaders read exist.

    Args:
        cfg: A whole config.
        loaders: Such as ``train_dataloader``; those that the config lacks are skipped.

    Raises:
        DataError: If a data root, an annotation file or an image folder is missing.
    """
    for loader in loaders:
        for dataset in datasets_of(cfg, loader):
            for kind, path in _dataset_paths(dataset):
                if not os.path.exists(path):
                    raise DataError(
                        f'{loader}: {kind} {path} does not exist. Set the environment variable '
                        'SWINV2_DATA to the folder that holds your data sets, or change '
                        f'{loader}.dataset in the config'
                    )


def annotation_files(cfg: Config) -> Iterator[str]:
    """List the annotation files of all data loaders and evaluators."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in datasets_of(cfg, loader):
            yield from (path for kind, path in _dataset_paths(dataset) if kind == 'annotation file')


def datasets_of(cfg: Config, loader: str) -> list[dict]:
    """Return the data sets of a data loader, without their wrappers; empty without the loader."""
    return list(innermost_datasets((cfg.get(loader) or {}).get('dataset')))


def metrics_of(evaluator: Any) -> list[dict]:
    """List the settings of the metrics of an evaluator: a metric, a list of them, or a wrapper.

    They are the evaluator's own objects, in the order in which it has them.
    """
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        return metrics_of(evaluator['metrics'])
    several = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    return [metric for metric in several if isinstance(metric, dict)]


def type_name(node: Any) -> str:
    """Return the class that a metric, transform or hook is built from, without its scope."""
    name = node.get('type') if isinstance(node, Mapping) else None
    return str(name or '').rpartition('.')[2]


def testing_pipeline(cfg: Config) -> list[dict]:
    """Return the transforms of the test data, or of the validation data without any."""
    for loader in ('test_dataloader', 'val_dataloader'):
        for dataset in datasets_of(cfg, loader):
            return [dict(transform) for transform in dataset.get('pipeline') or ()]
    return []


def image_folders(cfg: Config, loader: str) -> list[str]:
    """List the folders that a data loader reads images from, the innermost first."""
    found = []
    for dataset in innermost_datasets((cfg.get(loader) or {}).get('dataset')):
        paths = list(_dataset_paths(dataset))
        found += [path for kind, path in reversed(paths) if kind in ('folder', 'data root')]
    return sorted(dict.fromkeys(found), key=len, reverse=True)


def innermost_datasets(dataset: Any) -> Iterator[dict]:
    """Look through wrappers (repeat, concatenate, ...) at the data sets inside."""
    if not dataset:
        return
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is None:
        yield dataset
    for entry in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from innermost_datasets(entry)


def _dataset_paths(dataset: dict) -> Iterator[tuple[str, str]]:
    root = dataset.get('data_root') or ''
    if '://' in root:
        return
    if root:
        yield 'data root', root
    if dataset.get('ann_file'):
        yield 'annotation file', os.path.join(root, dataset['ann_file'])
    prefixes = dataset.get('data_prefix') or {}
    for name, prefix in (prefixes if isinstance(prefixes, dict) else {'img': prefixes}).items():
        if isinstance(prefix, str) and '://' not in prefix:
            kind = 'label map folder' if name.startswith('seg') else 'folder'
            yield kind, os.path.join(root, prefix)
