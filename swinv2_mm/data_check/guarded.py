"""Wrap a data set: a corrupt sample raises one line that names the file, or is skipped."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from swinv2_mm.datasets.files import shown
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.ordered_map import map_in_threads

from .bad_data import SkippedList
from .loading import LoadCheckedAnnotations
from .opening import NUM_AHEAD

HINT = (
    "bad_data='skip' in the config leaves such data out and keeps a list of it; "
    'tools/dataset.py check lists all of it'
)
# Failures in a row from which on the data is not to blame.
_MAX_FAILURES = 1000
_NUM_READERS = 4
_LONGEST_REASON = 600


class GuardedDataset:
    """Wrapper of a data set of any library that raises DataError for a corrupt sample, or skips it.

    Everything else is that of the data set inside.

    Args:
        build: Makes the data set.
        loader: How messages call it: ``train``, ``val`` or ``test``.
        skipped: Where to note what is left out; ``None`` raises instead. A test set is read once
            at the start, a training set takes the next sample for one that fails.

    Raises:
        DataError: If it cannot be built, or is empty.
    """

    def __init__(
        self, build: Callable[[], Any], *, loader: str, skipped: SkippedList | None
    ) -> None:
        self._loader, self._skipped = loader, skipped
        try:
            self.dataset = build()
            self.dataset.full_init()
            self._indices = range(len(self.dataset))
        except DataError:
            raise
        except Exception as error:
            # The libraries' readers raise errors of any type on a malformed file.
            if 'need at least one array' not in str(error):
                raise DataError(f'{loader} data set: {_reason(error)}') from error
            self._indices = range(0)
        self.innermost = list(_innermost(self.dataset)) if self._indices else []
        for dataset in self.innermost:
            for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
                if isinstance(step, LoadCheckedAnnotations) and hasattr(dataset, 'label_map'):
                    step.num_classes = step.num_classes or len(dataset.metainfo['classes'])
        if skipped is not None and loader != 'train':
            self._indices = self._readable()
        if not self._indices:
            raise DataError(
                f'{loader} data set: it holds no sample that can be used; check data_root, '
                'ann_file, data_prefix, suffixes and filter_cfg in the config'
            )

    def _readable(self) -> list[int]:
        def fault(index: int) -> DataError | None:
            try:
                self._read(index)
            except DataError as error:
                return error
            return None

        num_threads = min(_NUM_READERS, os.cpu_count() or 1)
        found = map_in_threads(fault, self._indices, num_threads=num_threads, num_ahead=NUM_AHEAD)
        faults = {index: future.result() for index, future in found}
        for index, error in faults.items():
            if error is not None:
                self._note(index, error)
        return [index for index, error in faults.items() if error is None]

    @property
    def num_left_out(self) -> int:
        """Number of samples that cannot be used."""
        return len(self.dataset) - len(self._indices)

    def left_out(self) -> set[Any]:
        """Ids of the images of a COCO file that are left out."""
        kept = set(self._indices)
        lost = (i for i in range(len(self.dataset)) if i not in kept)
        return {self.dataset.get_data_info(i).get('img_id') for i in lost}

    def get_data_info(self, index: int) -> dict:
        """What the data set knows about a sample."""
        return self.dataset.get_data_info(self._indices[index])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        """Read a sample.

        Raises:
            DataError: If it cannot be used.
        """
        if isinstance(self._indices, list):
            index = self._indices[index]
        if self._skipped is None or self._loader != 'train':
            try:
                return self._read(index)
            except DataError as error:
                raise DataError(f'{error}. {HINT}') from error
        for _ in range(min(_MAX_FAILURES, len(self))):
            try:
                return self._read(index)
            except DataError as error:
                failure = error
                self._note(index, error)
            # Not index + 1: the seed of a Draw stays with it, and a resumed run does the same.
            index = (index - -1) % len(self)
        raise DataError(f'no sample after another can be used; the last one: {failure}')

    def _read(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except DataError as error:
            raise DataError(_reason(error)) from error
        except Exception as error:
            path = str(self.dataset.get_data_info(int(index)).get('img_path', ''))
            raise DataError(f'image {shown(path)} cannot be used: {_reason(error)}') from error

    def _note(self, index: int, error: DataError) -> None:
        path = str(self.dataset.get_data_info(int(index)).get('img_path', ''))
        self._skipped.add(loader=self._loader, file=path, reason=str(error))

    def __deepcopy__(self, memo: dict) -> GuardedDataset:
        """Not copied: a Runner copies its settings, and a data set may fill the memory."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _innermost(dataset: Any) -> Iterable[Any]:
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        if part is None:
            yield dataset
        else:
            yield from _innermost(part)


def _reason(error: Exception) -> str:
    """Return the message in one line, with the kind of error if it is not one of ours."""
    text = textwrap.shorten(str(error), _LONGEST_REASON, placeholder=' ...')
    # Libraries raise it where every augmentation of a sample, or of a thousand, is refused.
    if isinstance(error, UserError) or type(error) is Exception:
        return text
    return f'{type(error).__name__}: {text}' if text else type(error).__name__
