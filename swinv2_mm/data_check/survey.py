"""Validate all data sets of a config."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mmengine.config import Config
from tqdm import tqdm

from swinv2_mm.config.datasets import metrics_of
from swinv2_mm.errors import UserError

from .class_names import check_config_classes, check_heads
from .coco import image_folder, unused_images
from .listing import Listing, evenly
from .opening import Digests, open_images
from .problems import Findings, Problem
from .readers import check_balance, read
from .sources import Source, sources_of

LOADERS = ('train', 'val', 'test')


@dataclass(kw_only=True)
class Survey:
    """All data sets that were read, and the problems found."""

    config: str
    data_sets: list[Listing]
    findings: Findings


def survey(
    cfg: Config,
    *,
    config: str,
    loaders: Sequence[str] = LOADERS,
    num_images: int | None = None,
    num_samples: int = 8,
    workers: int | None = None,
    progress: bool = True,
) -> Survey:
    """Validate the data sets of a config.

    Args:
        cfg: A whole config.
        config: Its path, for the findings.
        loaders: Some of ``LOADERS``; those that the config lacks are skipped.
        num_images: Images per data set to open, at even distances; default all of them.
        num_samples: Images per data set to draw.
        workers: Threads that decode; default one per core, at most 8.
        progress: Whether to show progress bars on stderr.

    Raises:
        UserError: If there is no data set that can be checked.
    """
    sources = _sources(cfg, loaders)
    if not any(source.kind for source in sources):
        named = ', '.join(s.type_name for s in sources) or 'none'
        raise UserError(
            f'config {config} has no data set that can be checked (it has: {named}); '
            'known are COCO instances and panoptic, label maps, image folders'
        )
    result = Survey(config=config, data_sets=[], findings=Findings())
    findings, digests = result.findings, Digests()
    workers = workers or min(8, os.cpu_count() or 1)
    train_folders = None
    for source in sources:
        name = source.name
        if not source.kind:
            problem = Problem('not-inspected', config, name, source.type_name)
            findings.add([problem], data_set=name)
            continue
        findings.add(check_config_classes(source, config=config), data_set=name)
        is_unnamed = source.raw_classes is None and source.kind == 'image folder'
        if source.classes is None and not is_unnamed:
            continue
        source = replace(source, train_folders=train_folders)
        listing = Listing(source=source)
        with _bar(f'{name}: labels', progress) as bar:
            problems = read(
                source, listing, is_thorough=True, num_samples=num_samples, advance=bar.update
            )
            findings.add(problems, data_set=name)
        # The content of a COCO file takes gigabytes of memory.
        listing.content = None
        chosen = evenly(listing.entries, num_images)
        with _bar(f'{name}: images', progress, total=len(chosen)) as bar:
            problems = open_images(
                listing,
                chosen,
                data_set=name,
                digests=digests,
                workers=workers,
                advance=bar.update,
            )
            findings.add(problems, data_set=name)
        findings.add(_check_model(cfg, source, listing, config=config), data_set=name)
        file, is_training = str(source.annotation_file or name), name.startswith('train')
        balance = check_balance(listing, is_training=is_training, file=file)
        findings.add(balance, data_set=name)
        if source.has_class_folders and train_folders is None:
            train_folders = listing.classes
        result.data_sets.append(listing)
    for loader in loaders:
        findings.add(_check_evaluators(cfg, loader, sources, config=config), data_set=loader)
    if set(loaders) == set(LOADERS):
        _check_unused(result)
    return result


def _sources(cfg: Config, loaders: Sequence[str]) -> list[Source]:
    """List the data sets, one that several loaders read only once."""
    sources: list[Source] = []
    for loader in loaders:
        for source in sources_of(cfg, loader):
            known = next((i for i, s in enumerate(sources) if s.reads_same_files(source)), None)
            if known is None:
                sources.append(source)
            elif not sources[known].name.startswith('train') or loader == 'train':
                name = f'{sources[known].name}, {source.name}'
                sources[known] = replace(sources[known], name=name)
            else:
                # Tested on its training images: read again, so that every image is named.
                sources.append(source)
    return sources


def _bar(title: str, progress: bool, *, total: int | None = None) -> tqdm:
    return tqdm(total=total, desc=title, disable=None if progress else True, mininterval=0.5)


def _check_model(
    cfg: Config, source: Source, listing: Listing, *, config: str
) -> Iterator[Problem]:
    is_panoptic = source.kind == 'panoptic' and source.thing_classes is not None
    things = len(source.thing_classes) if is_panoptic else None
    if number := len(listing.classes):
        yield from check_heads(cfg, config=config, num_classes=number, num_things=things)


def _check_evaluators(
    cfg: Config, loader: str, sources: list[Source], *, config: str
) -> Iterator[Problem]:
    own = [s for s in sources if loader in s.name and s.annotation_file is not None]
    paths = {os.path.normpath(s.annotation_file) for s in own}
    is_panoptic = any(s.kind == 'panoptic' for s in own)
    for evaluator in metrics_of(cfg.get(f'{loader}_evaluator')):
        path = evaluator.get('ann_file')
        # Panoptic results are measured as instances too, with a file of their own.
        if is_panoptic and evaluator.get('type') != 'CocoPanopticMetric':
            continue
        if path and paths and os.path.normpath(path) not in paths:
            detail = f'{path}; the loader reads {", ".join(sorted(paths))}'
            yield Problem('evaluator-file', config, f'{loader}_evaluator.ann_file', detail)


def _check_unused(result: Survey) -> None:
    """Look for images that no data set reads: train and val may share a folder."""
    used = {os.path.normpath(e.image) for d in result.data_sets for e in d.entries}
    folders = {
        image_folder(d.source): d.source.name
        for d in reversed(result.data_sets)
        if d.source.kind in ('instances', 'panoptic') and d.entries
    }
    for folder, name in folders.items():
        result.findings.add(unused_images(folder, used), data_set=name)
