"""Predict for any number of images and videos, and write the results to a folder."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from swinv2_mm.data_check.bad_data import SKIPPED_FILE, SkippedList, policy_of
from swinv2_mm.engine.throughput import peak_memory_bytes
from swinv2_mm.errors import DataError
from swinv2_mm.ordered_map import map_in_threads

from .inferencer import SwinV2Inferencer
from .job import Job
from .output_folder import OutputFolder
from .prediction import Prediction
from .sources import Source
from .tile_grid import Tiling
from .tiles import TiledPrediction
from .video import VideoReader
from .video_prediction import predict_video

# Files before memory is first measured: by then libraries have allocated what they keep.
_WARM_AFTER = 50
_BYTES_PER_MB = 1e6
# Threads that draw and write while the model works.
_NUM_WRITERS = 2


@dataclass(frozen=True)
class Summary:
    """The outcome of a run over files; its text is one line.

    Attributes:
        folder: Where the results are.
        num_done: Files that have their results.
        num_failed: Files that have not.
        skipped_list: Where those are listed, with ``bad_data='skip'``.
        passed_over: Numbers of files in folders that are no images or videos, by suffix.
        seconds: Duration of the run.
        memory_mb: Peak memory of the process, the largest one of several.
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
        tiling: How large images are cut; ``None`` takes them whole.
        track_from: Score from which detections of videos begin a track; ``None`` follows none.
        resume: Whether to go on in a folder with results.
        total: Number of files, for the progress bar.
        passed_over: Files in folders that are no images or videos, for the summary.
        job: The processes that share the files.
    """

    def __init__(
        self,
        inferencer: SwinV2Inferencer,
        *,
        folder: Path,
        settings: dict[str, Any],
        batch_size: int,
        score_threshold: float | None,
        tiling: Tiling | None = None,
        track_from: float | None = None,
        resume: bool,
        total: int | None,
        passed_over: Mapping[str, int],
        job: Job | None = None,
    ) -> None:
        self._passed_over = passed_over
        self._job = job or Job()
        self._inferencer = inferencer
        self._batch_size, self._score_threshold = batch_size, score_threshold
        self._tiling, self._track_from = tiling, track_from
        self._num_done = self._num_failed = 0
        self._warm_memory_mb = 0.0
        is_skipping = policy_of(inferencer.cfg, 'infer') == 'skip'
        self._skipped = SkippedList(folder / SKIPPED_FILE) if is_skipping else None
        self._num_finished = 0
        self._list_error: Exception | None = None
        self.output = OutputFolder(folder, run=settings, resume=resume, job=self._job)
        # The first process shows what all have done; elsewhere than on a terminal there is no bar.
        self._bar = tqdm(total=total, unit='file', disable=None if self._job.rank == 0 else True)

    def __call__(self, sources: Iterable[Source]) -> Summary | None:
        """Predict for all files; those that cannot be read are reported and skipped.

        Args:
            sources: All files; only the first process of a job reads them, and tells the others.

        Returns:
            What all processes have done; ``None`` in others than the first.
        """
        start = time.monotonic()
        try:
            with self._bar:
                share = self._share(sources)
                for is_video, group in itertools.groupby(share, key=lambda s: s.is_video):
                    if is_video:
                        self._one_by_one(group, self._predict_video)
                    elif self._tiling is not None:
                        self._one_by_one(group, self._predict_in_tiles)
                    else:
                        self._predict_images(group)
        except KeyboardInterrupt:
            print(f'{self._num_done} files done; --resume goes on', file=sys.stderr)
            raise
        finally:
            self.output.close()
        memory_mb = peak_memory_bytes() / _BYTES_PER_MB
        own = [self._num_done, self._num_failed, memory_mb, self._warm_memory_mb]
        self._job.publish(f'outcome {self._job.rank}', own)
        if self._job.rank > 0:
            return None
        others = [self._job.wait_for(f'outcome {rank}') for rank in range(1, self._job.size)]
        if self._list_error is not None:
            raise self._list_error
        self.output.merge()
        num_done, num_failed, memory_mb, warm_memory_mb = zip(own, *others, strict=True)
        return Summary(
            folder=self.output.root,
            num_done=sum(num_done),
            num_failed=sum(num_failed),
            skipped_list=None if self._skipped is None else self._skipped.path,
            passed_over=self._passed_over,
            seconds=time.monotonic() - start,
            memory_mb=max(memory_mb),
            warm_memory_mb=max(warm_memory_mb),
        )

    def _share(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield what this process is to do of the files that have no results."""
        if self._job.size == 1:
            try:
                yield from self._without_done(self.output.list_files(sources))
            except Exception as error:
                self._list_error = error
            return
        # A thread, so that the first process need not wait for what is to come on standard input.
        lister = threading.Thread(target=self._list, args=[sources], daemon=True)
        if self._job.rank == 0:
            lister.start()
        number = self._job.claim()
        for position, source in enumerate(self._without_done(self.output.follow_list())):
            if position == number:
                yield source
                number = self._job.claim()
        if self._job.rank == 0:
            lister.join()

    def _list(self, sources: Iterable[Source]) -> None:
        try:
            for _ in self.output.list_files(sources):
                pass
        except Exception as error:
            self._list_error = error

    def _without_done(self, listed: Iterable[tuple[Source, bool]]) -> Iterator[Source]:
        for source, is_done in listed:
            if is_done:
                self._bar.update()
            else:
                yield source

    def _finish_one(self) -> None:
        """Advance the bar by what all processes have finished."""
        num_finished = self._num_finished + 1
        if self._job.size > 1:
            num_finished = self._job.count('finished')
        self._bar.update(num_finished - self._num_finished)
        self._num_finished = num_finished

    def _succeed(self) -> None:
        self._num_done += 1
        self._finish_one()
        if self._num_done == _WARM_AFTER:
            self._warm_memory_mb = peak_memory_bytes() / _BYTES_PER_MB

    def _fail(self, source: object, reason: str) -> None:
        self._num_failed += 1
        self._finish_one()
        self._bar.set_postfix(failed=self._num_failed)
        if self._skipped is not None:
            self._skipped.add(loader='infer', file=str(source), reason=reason)
        tqdm.write(f'{"failed" if self._skipped is None else "skipped"}: {reason}', file=sys.stderr)

    def _predict_images(self, sources: Iterable[Source]) -> None:
        predictions = self._inferencer(sources, batch_size=self._batch_size, on_error=self._fail)
        for prediction, content in map_in_threads(
            lambda prediction: self.output.write(prediction, picture=self._draw(prediction)),
            predictions,
            num_threads=_NUM_WRITERS,
            num_ahead=_NUM_WRITERS,
        ):
            self.output.add_record(prediction.source, content.result())
            self._succeed()

    def _draw(self, prediction: Prediction | TiledPrediction) -> np.ndarray | None:
        if self._score_threshold is None:
            return None
        return self._inferencer.draw(prediction, score_threshold=self._score_threshold)

    def _one_by_one(self, sources: Iterable[Source], predict: Callable[[Source], dict]) -> None:
        for source in sources:
            try:
                self.output.add_record(source, predict(source))
            except DataError as error:
                self._fail(source, str(error))
            else:
                self._succeed()

    def _predict_in_tiles(self, source: Source) -> dict[str, Any]:
        """Predict for one image; its label map is written as its strips are finished."""
        classes = self._inferencer.classes
        prediction = self._inferencer.predict_in_tiles(
            source,
            self._tiling,
            batch_size=self._batch_size,
            open_writer=partial(self.output.label_map_writer, source=source, classes=classes),
        )
        return self.output.write(prediction, picture=self._draw(prediction))

    def _predict_video(self, source: Source) -> dict[str, Any]:
        if self._tiling is not None:
            message = f'warning: {source}: frames of videos are not cut into tiles'
            tqdm.write(message, file=sys.stderr)
        folder = self.output.root / 'videos'
        count = predict_video(
            self._inferencer,
            VideoReader(source),
            lines=folder / f'{source.name}.jsonl',
            drawn=folder / f'{source.name}.mp4',
            draw=self._draw,
            batch_size=self._batch_size,
            track_from=self._track_from,
        )
        return {'frames': count, 'predictions': f'videos/{source.name}.jsonl'}
