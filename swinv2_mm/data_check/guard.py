"""The data sets of a run, guarded: the config entry ``bad_data`` says what bad data does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.config.datasets import innermost_datasets
from swinv2_mm.datasets.files import shown
from swinv2_mm.errors import DataError, UserError

from .bad_data import SKIPPED_FILE, SkippedList, SkippedSummaryHook, policy_of
from .catalogue import CATALOGUE
from .faults import Fault, Screened
from .guarded import HINT, GuardedDataset
from .image_lists import screen_list
from .screening import screen_coco
from .sources import Source, loads_masks, source_of

_COCO_KINDS = ('instances', 'panoptic')


def guard_data(runner: Runner, loaders: Iterable[str]) -> None:
    """Look the annotation files of a run over, and build its data sets so that they are guarded.

    With ``bad_data='skip'`` the libraries and the metrics read copies of the annotation files
    without what cannot be used, from the folder ``usable_annotations`` of the work dir.

    Args:
        runner: Of a config, before it runs.
        loaders: Of ``train``, ``val`` and ``test``; those that the config lacks are passed over.

    Raises:
        DataError: If there is bad data and it is not to be skipped, or nothing is left.
        UserError: If the policy is unknown.
    """
    work_dir = Path(runner.work_dir).resolve()
    skipped = SkippedList(work_dir / SKIPPED_FILE)
    for loader in loaders:
        settings = getattr(runner, f'_{loader}_dataloader')
        if isinstance(settings, dict) and isinstance(settings.get('dataset'), dict):
            listed = skipped if policy_of(runner.cfg, loader) == 'skip' else None
            _Guard(runner, loader, skipped=listed, work_dir=work_dir).guard(settings)
    runner.register_hook(SkippedSummaryHook(skipped))


class _Guard:
    """Guards one loader of a run."""

    def __init__(
        self, runner: Runner, loader: str, *, skipped: SkippedList | None, work_dir: Path
    ) -> None:
        self._runner, self._loader, self._skipped = runner, loader, skipped
        self._folder = work_dir / 'usable_annotations'
        self._num_written = 0

    def guard(self, settings: dict) -> None:
        """Replace the data set in the settings of a loader by a guarded one."""
        outer = settings['dataset']
        read: dict[Path, Screened] = {}
        for dataset in innermost_datasets(outer):
            source = self._source(dataset, with_masks=loads_masks(outer))
            if source is None or source.annotation_file is None:
                continue
            found = self._screen(source)
            if found is not None:
                path = self._usable(source.annotation_file, found)
                if path != source.annotation_file:
                    dataset['ann_file'] = str(path)
                read[path] = found
        self._screen_metrics(read)
        guarded = GuardedDataset(
            lambda: DATASETS.build(outer), loader=self._loader, skipped=self._skipped
        )
        self._check_folders(guarded)
        settings['dataset'] = guarded
        lost = guarded.left_out()
        if len(read) == 1 and lost:
            # Images that cannot be read: the metrics must not wait for them.
            ((path, found),) = read.items()
            if isinstance(found.content, dict):
                _leave_out(found.content, lost)
                self._redirect_metrics(path, self._write(found, f'readable-{path.stem}'))

    def _source(self, dataset: dict, *, with_masks: bool) -> Source | None:
        scope = self._runner.cfg.get('default_scope') or 'mmengine'
        with_masks = with_masks or any('segm' in str(m.get('metric')) for m in self._metrics())
        try:
            return source_of(dataset, name=self._loader, scope=scope, with_masks=with_masks)
        except UserError:
            # On another machine, or of a class that only its library knows.
            return None

    def _screen(self, source: Source) -> Screened | None:
        path = str(source.annotation_file)
        if source.kind in _COCO_KINDS:
            is_panoptic = source.kind == 'panoptic'
            return screen_coco(path, is_panoptic=is_panoptic, with_masks=source.with_masks)
        if source.kind == 'image folder' and source.settings.get('with_label', True):
            return screen_list(path, num_classes=self._num_classes(source))
        return None

    def _num_classes(self, source: Source | None = None) -> int | None:
        if source is not None and source.classes:
            return len(source.classes)
        return (self._runner.cfg.model.get('head') or {}).get('num_classes')

    def _check_folders(self, dataset: GuardedDataset) -> None:
        """Class folders beyond the model's classes would stop the loss."""
        folders, num_classes = getattr(dataset, 'folder_to_idx', None), self._num_classes()
        if folders and num_classes is not None and len(folders) > num_classes:
            raise DataError(
                f'{self._loader} data set: {len(folders)} class folders, the model has '
                f'{num_classes} classes (model.head.num_classes)'
            )

    def _metrics(self) -> list[dict]:
        metrics = getattr(self._runner, f'_{self._loader}_evaluator', None)
        metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
        return [metric for metric in metrics if isinstance(metric, dict)]

    def _screen_metrics(self, read: Iterable[Path]) -> None:
        """Look the files over that only metrics read."""
        known = {path.resolve() for path in read}
        for metric in self._metrics():
            path = metric.get('ann_file')
            if path and 'Coco' in str(metric['type']) and Path(path).resolve() not in known:
                is_panoptic = 'Panoptic' in str(metric['type'])
                with_masks = 'segm' in str(metric.get('metric'))
                found = screen_coco(path, is_panoptic=is_panoptic, with_masks=with_masks)
                self._usable(Path(path), found)

    def _redirect_metrics(self, old: Path, new: Path) -> None:
        for metric in self._metrics():
            path = metric.get('ann_file')
            if path and Path(path).resolve() == old.resolve():
                metric['ann_file'] = str(new)

    def _usable(self, path: Path, found: Screened) -> Path:
        """Return the file to read instead: the same one if it has no faults."""
        if not found.faults:
            return path
        message = _message(path, found.faults)
        if self._skipped is None:
            raise DataError(f'{message}. {HINT}')
        if is_main_process():
            for fault in found.faults:
                self._skipped.add(
                    loader=self._loader, file=str(path), place=fault.place, reason=fault.reason
                )
        self._runner.logger.warning(f"bad_data='skip': {message}")
        self._num_written += 1
        usable = self._write(found, f'{self._num_written}-{path.stem}')
        self._redirect_metrics(path, usable)
        return usable

    def _write(self, found: Screened, name: str) -> Path:
        is_text = isinstance(found.content, list)
        path = self._folder / f'{self._loader}-{name}{".txt" if is_text else ".json"}'
        if is_main_process():
            text = '\n'.join(found.content) if is_text else json.dumps(found.content)
            atomic_write(path, text)
        barrier()
        return path


def _leave_out(content: dict, image_ids: set) -> None:
    content['images'] = [i for i in content['images'] if i['id'] not in image_ids]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] not in image_ids]


def _message(path: Path, faults: list[Fault]) -> str:
    counts = Counter(fault.kind for fault in faults).most_common()
    listed = ', '.join(f'{n} {kind}' for kind, n in counts)
    return (
        f'annotation file {shown(path)}: {len(faults)} entries cannot be used ({listed}); the '
        f'first: {faults[0].place}: {faults[0].reason}. Mend: {CATALOGUE[faults[0].kind].remedy}'
    )
