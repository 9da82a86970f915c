"""All data sets of a config, looked over one after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmengine.config import Config
from tqdm import tqdm

from swinv2_mm.errors import UserError

from .class_names import check_config_classes, check_heads
from .coco_file import image_folder, report_unused_images
from .findings import Findings, Reporter
from .image_folders import read_image_folder
from .instances import read_instances
from .label_maps import read_label_maps
from .listing import Listing, evenly
from .opening import Digests, open_images
from .panoptic import read_panoptic
from .sources import Source, sources_of

LOADERS = ('train', 'val', 'test')
_READERS = {
    'instances': read_instances,
    'panoptic': read_panoptic,
    'label maps': read_label_maps,
    'image folder': read_image_folder,
}
_RARE_RATE = 0.01


@dataclass(kw_only=True)
class Surveyed:
    """A data set and what was read of it."""

    source: Source
    listing: Listing


@dataclass(kw_only=True)
class Survey:
    """Everything that was looked at and found."""

    config: str
    data_sets: list[Surveyed]
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
    """Look over the data sets of a config.

    Args:
        cfg: A whole config.
        config: Its path, for the findings.
        loaders: Of ``LOADERS``; those that the config lacks are passed over.
        num_images: Images per data set to open, at even distances; default all of them.
        num_samples: Images per data set to draw.
        workers: Threads that decode; default one per core, at most 8.
        progress: Whether to show progress bars on stderr.

    Raises:
        UserError: If there is no data set that can be inspected.
    """
    sources = _sources(cfg, loaders)
    if not any(source.kind for source in sources):
        named = ', '.join(s.type_name for s in sources) or 'none'
        raise UserError(
            f'config {config} has no data set that can be checked (it has: {named}); '
            'known are COCO instances and panoptic, label maps, image folders'
        )
    findings, digests, data_sets = Findings(), Digests(), []
    workers = workers or min(8, os.cpu_count() or 1)
    for source in sources:
        report = Reporter(findings, data_set=source.name)
        if not source.kind:
            report('not-inspected', config, id=source.name, detail=source.type_name)
            continue
        if not check_config_classes(source, report, config=config):
            continue
        with _bar(f'{source.name}: labels', progress) as bar:
            listing = _READERS[source.kind](
                source, report, num_samples=num_samples, advance=bar.update
            )
        chosen = evenly(listing.entries, num_images)
        with _bar(f'{source.name}: images', progress, total=len(chosen)) as bar:
            open_images(
                listing, chosen, report, digests=digests, workers=workers, advance=bar.update
            )
        _check_model(cfg, source, listing, report, config=config)
        _check_balance(listing, report, file=str(source.annotation_file or source.name))
        data_sets.append(Surveyed(source=source, listing=listing))
    for loader in loaders:
        _check_evaluators(cfg, loader, sources, Reporter(findings, data_set=loader), config=config)
    _check_folders(data_sets, findings)
    if set(loaders) == set(LOADERS):
        _check_unused(data_sets, findings)
    return Survey(config=config, data_sets=data_sets, findings=findings)


def _sources(cfg: Config, loaders: Sequence[str]) -> list[Source]:
    """List the data sets, one that several loaders read only once."""
    sources: list[Source] = []
    for loader in loaders:
        for source in sources_of(cfg, loader):
            known = next((i for i, s in enumerate(sources) if s.reads_same_files(source)), None)
            if known is None:
                sources.append(source)
            elif not _is_training(sources[known]) or loader == 'train':
                sources[known] = replace(
                    sources[known], name=f'{sources[known].name}, {source.name}'
                )
            else:
                # Tested on its training images: read again, so that every image is named.
                sources.append(source)
    return sources


def _is_training(source: Source) -> bool:
    return source.name.startswith('train')


def _bar(title: str, progress: bool, *, total: int | None = None) -> tqdm:
    return tqdm(total=total, desc=title, disable=None if progress else True, mininterval=0.5)


def _check_model(
    cfg: Config, source: Source, listing: Listing, report: Reporter, *, config: str
) -> None:
    is_panoptic = source.kind == 'panoptic' and source.thing_classes is not None
    things = len(source.thing_classes) if is_panoptic else None
    if listing.classes:
        check_heads(cfg, report, config=config, num_classes=len(listing.classes), num_things=things)


def _check_balance(listing: Listing, report: Reporter, *, file: str) -> None:
    counts = listing.counts
    largest = max(counts.values(), default=0)
    if not largest:
        return
    for number, name in enumerate(listing.classes):
        place = f'class {number}'
        if not counts[name]:
            is_training = report.data_set.startswith('train')
            kind = 'class-never-seen' if is_training else 'class-not-tested'
            report(kind, file, id=place, detail=name)
        elif counts[name] < _RARE_RATE * largest:
            report('class-rare', file, id=place, detail=f'{name}: {counts[name]} {listing.unit}')


def _check_evaluators(
    cfg: Config, loader: str, sources: list[Source], report: Reporter, *, config: str
) -> None:
    evaluators = cfg.get(f'{loader}_evaluator') or []
    own = [s for s in sources if loader in s.name and s.annotation_file is not None]
    read = {os.path.normpath(s.annotation_file) for s in own}
    is_panoptic = any(s.kind == 'panoptic' for s in own)
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        path = evaluator.get('ann_file')
        # Panoptic results are measured as instances too, with a file of their own.
        if is_panoptic and evaluator.get('type') != 'CocoPanopticMetric':
            continue
        if path and read and os.path.normpath(path) not in read:
            detail = f'{path}; the loader reads {", ".join(sorted(read))}'
            report('evaluator-file', config, id=f'{loader}_evaluator.ann_file', detail=detail)


def _check_unused(data_sets: list[Surveyed], findings: Findings) -> None:
    """Look for images that no data set reads: train and val may share a folder."""
    used = {os.path.normpath(e.image) for d in data_sets for e in d.listing.entries}
    folders = {
        image_folder(d.source): d.source.name
        for d in reversed(data_sets)
        if d.source.kind in ('instances', 'panoptic') and d.listing.entries
    }
    for folder, name in folders.items():
        report_unused_images(folder, used, Reporter(findings, data_set=name))


def _check_folders(data_sets: list[Surveyed], findings: Findings) -> None:
    """Compare the class folders: their sorted names are the labels."""
    in_folders = [
        d for d in data_sets
        if d.source.kind == 'image folder' and d.source.annotation_file is None
    ]  # fmt: skip
    for other in in_folders[1:]:
        first = in_folders[0]
        report = Reporter(findings, data_set=other.source.name)
        for name in sorted(set(first.listing.classes) ^ set(other.listing.classes)):
            has, lacks = (first, other) if name in first.listing.classes else (other, first)
            report(
                'class-folders-differ',
                lacks.source.folders['img_path'],
                detail=f'lacks {name!r}, which {has.source.name} has',
            )
