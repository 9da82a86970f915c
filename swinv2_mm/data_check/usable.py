"""Filter invalid annotations: use the original file if it is valid, else write a filtered copy."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.datasets.files import shown
from swinv2_mm.errors import DataError

from .bad_data import SKIPPED_FILE, SkippedList, policy_of
from .catalogue import CATALOGUE
from .guarded import HINT
from .listing import Listing
from .problems import Problem
from .readers import read
from .sources import Source

# Problems of a whole data set: there is no entry to leave out.
_OF_ALL = frozenset(
    {
        'annotation-file-broken',
        'class-missing',
        'category-unusable',
        'class-repeated',
        'classes-misspelt',
        'classes-not-a-list',
        'class-not-of-type',
        'class-thing-or-stuff',
        'class-folder-hidden',
        'class-folder-unknown',
        'boxes-are-corners',
        'boxes-are-fractions',
    }
)
# The libraries report in their own words that nothing is left.
_IN_PART = ('data-set-empty', 'classes-not-named')


class UsableFiles:
    """Read the annotation files of a run, and write filtered copies of those with invalid entries.

    Args:
        cfg: A whole config, whose ``bad_data`` says whether a copy may leave entries out.
        work_dir: Folder for the copies and for the list of what is left out.
        logger: Takes warnings.
    """

    def __init__(self, cfg: Config, *, work_dir: Path, logger: logging.Logger) -> None:
        self._cfg, self._logger = cfg, logger
        self._folder = work_dir / 'usable_annotations'
        self.skipped = SkippedList(work_dir / SKIPPED_FILE)
        self._num_written = 0

    def read(self, source: Source, *, metrics: list[dict]) -> tuple[Listing, Path | None]:
        """Read a data set; return also the annotation file to use: the same one if it is right.

        Args:
            source: A data set of a known kind.
            metrics: Settings of metrics; those that read the same file are pointed to the copy.

        Raises:
            DataError: If it cannot be used, or only in part and the policy is to raise.
        """
        loader, path, listing = source.name, source.annotation_file, Listing(source=source)
        found = list(read(source, listing, is_thorough=False))
        refuse_whole(found, loader=loader)
        refused = [p for p in found if p.is_refused and p.kind not in (*_OF_ALL, *_IN_PART)]
        if refused:
            message = _message(path, refused)
            if policy_of(self._cfg, loader) != 'skip':
                raise DataError(f'{message}. {HINT}')
            self._logger.warning(f"bad_data='skip': {message}")
            for p in refused if is_main_process() else ():
                self.skipped.add(loader=loader, file=p.file, place=p.place, reason=p.reason)
        elif not (listing.is_reordered or listing.num_renamed) or not listing.content:
            return listing, path
        if listing.is_reordered:
            where = shown(path or source.folders['img_path'])
            self._logger.warning(
                f'{loader} data set: the classes of {where} have another order than those of the '
                'config, or some are missing: labels follow the class names'
            )
        if listing.num_renamed:
            self._logger.warning(
                f'{loader} data set: {listing.num_renamed} file names in {shown(path)} have '
                'back-slashes, which are read as slashes'
            )
        self._num_written += 1
        usable = self._write(
            listing.content, f'{loader}-{self._num_written}-{(path or Path("folders")).stem}'
        )
        if path is not None:
            _redirect(metrics, path, usable)
        return listing, usable

    def read_of_metrics(
        self,
        loader: str,
        metrics: list[dict],
        *,
        known: Iterable[Path],
        of_data: Source | None,
    ) -> None:
        """Read the files that only metrics read, as ``read`` does.

        Args:
            loader: ``val`` or ``test``.
            metrics: Their settings.
            known: The files that have been read.
            of_data: The data set, whose classes are those of the files.
        """
        classes = None if of_data is None else of_data.classes
        things = None if of_data is None else of_data.thing_classes
        known = {path.resolve() for path in known}
        for metric in metrics:
            path = metric.get('ann_file')
            if path and 'Coco' in str(metric['type']) and Path(path).resolve() not in known:
                is_panoptic = 'Panoptic' in str(metric['type'])
                source = Source(
                    name=loader,
                    type_name='',
                    kind='panoptic' if is_panoptic else 'instances',
                    # Panoptic results are scored as instances too: those of things.
                    classes=classes if is_panoptic or things is None else things,
                    annotation_file=Path(path),
                    with_masks='segm' in str(metric.get('metric')),
                )
                self.read(source, metrics=metrics)

    def leave_out(
        self, image_ids: set, path: Path, listing: Listing, *, loader: str, metrics: list[dict]
    ) -> None:
        """Have metrics read a copy without unreadable images, which no prediction will be for."""
        content = listing.content
        if isinstance(content, dict):
            for key, of in (('images', 'id'), ('annotations', 'image_id')):
                content[key] = [entry for entry in content[key] if entry[of] not in image_ids]
            _redirect(metrics, path, self._write(content, f'{loader}-readable-{path.stem}'))

    def _write(self, content: dict | list[str], name: str) -> Path:
        is_text = isinstance(content, list)
        path = self._folder / f'{name}{".txt" if is_text else ".json"}'
        if is_main_process():
            atomic_write(path, '\n'.join(content) if is_text else json.dumps(content))
        barrier()
        return path


def refuse_whole(problems: Iterable[Problem], *, loader: str) -> None:
    """Raise an error for the first problem that concerns the whole of a data set.

    Raises:
        DataError: If there is one.
    """
    for problem in problems:
        if problem.kind == 'annotation-file-broken':
            raise DataError(problem.detail)
        if problem.kind in _OF_ALL:
            raise DataError(
                f'{loader} data set: {shown(problem.file)}: {problem.reason}. '
                f'Fix: {CATALOGUE[problem.kind].remedy}'
            )


def _redirect(metrics: list[dict], old: Path, new: Path) -> None:
    for metric in metrics:
        path = metric.get('ann_file')
        if path and Path(path).resolve() == old.resolve():
            metric['ann_file'] = str(new)


def _message(path: Path | None, problems: list[Problem]) -> str:
    counts = Counter(problem.kind for problem in problems).most_common()
    listed, first = ', '.join(f'{n} {kind}' for kind, n in counts), problems[0]
    return (
        f'annotation file {shown(path)}: {len(problems)} problems ({listed}); the first: '
        f'{first.place}: {first.reason}. Fix: {CATALOGUE[first.kind].remedy}'
    )
