"""Predict for any number of images and videos, and write the results to a folder."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from swinv2_mm.data_check.bad_data import SKIPPED_FILE, SkippedList, policy_of
from swinv2_mm.engine.throughput import peak_memory_bytes
from swinv2_mm.errors import DataError

from .inferencer import SwinV2Inferencer
from .output_folder import OutputFolder
from .prediction import Prediction
from .sources import Source
from .video import VideoReader, VideoWriter

# When memory is first measured: libraries have allocated what they keep.
_WARM_AFTER = 50
_BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class Summary:
    """The outcome of a run over files; its text is one line.

    Attributes:
        folder: Where the results are.
        num_done: Files that have their results.
        num_failed: Files that have not.
        skipped_list: Where those are listed, with ``bad_data='skip'``.
        passed_over: Files in folders that are no images or videos, by how their names end.
        seconds: Duration of the run.
        memory_mb: Peak memory of the process.
        warm_memory_mb: The same after the first 50 files, or 0.
    """

    folder: Path
    num_done: int
    num_failed: int
    skipped_list: Path | None
    passed_over: Mapping[str, int]
    seconds: float
    memory_mb: float
    warm_memory_mb: float

    @property
    def is_success(self) -> bool:
        """Whether all files have results, or some, where the config allows to skip the others."""
        return not self.num_failed or bool(self.skipped_list is not None and self.num_done)

    def __str__(self) -> str:
        failed = 'failed' if self.skipped_list is None else f'skipped ({self.skipped_list})'
        memory = f'memory at most {self.memory_mb:.0f} MB'
        if self.warm_memory_mb:
            memory += f' (after {_WARM_AFTER} files {self.warm_memory_mb:.0f} MB)'
        other = ''
        if self.passed_over:
            endings = ', '.join(sorted(self.passed_over))
            other = f' {sum(self.passed_over.values())} other files passed over ({endings}).'
        return (
            f'{self.num_done} files done, {self.num_failed} {failed}, in {self.seconds:.1f} s; '
            f'{memory}.{other} Results: {self.folder}'
        )


class PredictionRun:
    """A run of an inferencer over files.

    Args:
        inferencer: What predicts.
        folder: Output folder.
        settings: What the results depend on: a run is resumed with the same only.
        batch_size: Images that go through the model together.
        score_threshold: Detections are drawn from this score on; ``None`` draws nothing.
        resume: Whether to go on in a folder with results.
        total: Number of files, for the progress bar.
        passed_over: For the summary.
    """

    def __init__(
        self,
        inferencer: SwinV2Inferencer,
        *,
        folder: Path,
        settings: dict[str, Any],
        batch_size: int,
        score_threshold: float | None,
        resume: bool,
        total: int | None,
        passed_over: Mapping[str, int],
    ) -> None:
        self._passed_over = passed_over
        self._inferencer = inferencer
        self._batch_size, self._score_threshold = batch_size, score_threshold
        self._num_done = self._num_failed = 0
        self._warm_memory_mb = 0.0
        is_skipping = policy_of(inferencer.cfg, 'infer') == 'skip'
        self._skipped = SkippedList(folder / SKIPPED_FILE) if is_skipping else None
        self.output = OutputFolder(folder, run=settings, resume=resume)
        self._bar = tqdm(total=total, unit='file', disable=None)

    def __call__(self, sources: Iterable[Source]) -> Summary:
        """Predict for all files; those that cannot be read are reported and skipped."""
        start = time.monotonic()
        try:
            with self._bar:
                waiting = self._without_done(sources)
                for is_video, group in itertools.groupby(waiting, key=lambda s: s.is_video):
                    if is_video:
                        self._predict_videos(group)
                    else:
                        self._predict_images(group)
        except KeyboardInterrupt:
            print(f'{self._num_done} files done; --resume goes on', file=sys.stderr)
            raise
        finally:
            self.output.close()
        return Summary(
            folder=self.output.root,
            num_done=self._num_done,
            num_failed=self._num_failed,
            skipped_list=None if self._skipped is None else self._skipped.path,
            passed_over=self._passed_over,
            seconds=time.monotonic() - start,
            memory_mb=peak_memory_bytes() / _BYTES_PER_MB,
            warm_memory_mb=self._warm_memory_mb,
        )

    def _without_done(self, sources: Iterable[Source]) -> Iterator[Source]:
        for source in sources:
            if self.output.is_done(source):
                self._bar.update()
            else:
                yield source

    def _succeed(self) -> None:
        self._num_done += 1
        self._bar.update()
        if self._num_done == _WARM_AFTER:
            self._warm_memory_mb = peak_memory_bytes() / _BYTES_PER_MB

    def _fail(self, source: object, reason: str) -> None:
        self._num_failed += 1
        self._bar.update()
        self._bar.set_postfix(failed=self._num_failed)
        if self._skipped is not None:
            self._skipped.add(loader='infer', file=str(source), reason=reason)
        tqdm.write(f'{"failed" if self._skipped is None else "skipped"}: {reason}', file=sys.stderr)

    def _predict_images(self, sources: Iterable[Source]) -> None:
        predictions = self._inferencer(sources, batch_size=self._batch_size, on_error=self._fail)
        for prediction in predictions:
            self.output.add(prediction, picture=self._draw(prediction))
            self._succeed()

    def _draw(self, prediction: Prediction) -> np.ndarray | None:
        if self._score_threshold is None:
            return None
        return self._inferencer.draw(prediction, score_threshold=self._score_threshold)

    def _predict_videos(self, sources: Iterable[Source]) -> None:
        for source in sources:
            try:
                self._predict_video(source)
            except DataError as error:
                self._fail(source, str(error))
            else:
                self._succeed()

    def _predict_video(self, source: Source) -> None:
        reader = VideoReader(source)
        name = self.output.reserve_name(source)
        folder = self.output.root / 'videos'
        lines = folder / f'{name}.jsonl'
        lines.parent.mkdir(parents=True, exist_ok=True)
        frames = self._inferencer(reader, batch_size=self._batch_size)
        bar = tqdm(frames, total=reader.num_frames or None, desc=name, leave=False, disable=None)
        with lines.open('w') as file, VideoWriter(folder / f'{name}.mp4', rate=reader.rate) as out:
            for number, prediction in enumerate(bar):
                file.write(json.dumps({'frame': number, **prediction.to_dict()}) + '\n')
                if (picture := self._draw(prediction)) is not None:
                    out.write(picture)
        content = {'frames': number + 1, 'predictions': f'videos/{name}.jsonl'}
        self.output.add_record(source, name, content)
