"""Lists of labelled videos, as Kinetics-400 is given."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from swinv2_mm.engine.seeding import Draw
from swinv2_mm.errors import DataError


@DATASETS.register_module()
class VideoList(BaseDataset):
    """Videos that a text file lists, a line for each: its path and the number of its class.

    Args:
        ann_file: The list.
        num_classes: Numbers of classes are below it.
        data_prefix: ``dict(video=FOLDER)``; the paths of the list are in this folder.
        skip_broken: In training, take the next video of the list instead of one that cannot be
            read, and count. A test never leaves one out.
        data_root: As for ``BaseDataset``, as are ``metainfo``, ``pipeline`` and ``test_mode``.

    Attributes:
        num_skipped: How often a broken video was met, in this process.

    Raises:
        DataError: If a line of the list is not a path and a class.
    """

    def __init__(
        self,
        ann_file: str,
        *,
        num_classes: int,
        data_prefix: dict,
        skip_broken: bool = False,
        data_root: str = '',
        metainfo: dict | None = None,
        pipeline: tuple | list = (),
        test_mode: bool = False,
    ) -> None:
        self.num_classes = num_classes
        self.skip_broken = skip_broken and not test_mode
        self.num_skipped = 0
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=data_prefix,
            pipeline=pipeline,
            test_mode=test_mode,
        )

    def load_data_list(self) -> list[dict]:
        """Read the list."""
        try:
            lines = Path(self.ann_file).read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f'video list {self.ann_file} cannot be read: {error}') from error
        videos = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(' ')
            if not path or not label.isdecimal() or int(label) >= self.num_classes:
                raise DataError(
                    f'video list {self.ann_file}, line {number}: expected a path and a class from '
                    f"0 to {self.num_classes - 1}, got '{line.strip()[:80]}'"
                )
            path = str(Path(self.data_prefix.get('video') or '', path.strip()))
            videos.append({'video_path': path, 'gt_label': int(label)})
        if not videos:
            raise DataError(f'video list {self.ann_file} is empty')
        return videos

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on a video, or on the next one that can be read.

        Raises:
            DataError: If the video is broken and ``skip_broken`` does not apply, or all are.
        """
        for step in range(len(self)):
            index = (idx + step) % len(self)
            # Keeps its own seed: the run stays reproducible.
            index = Draw(index, idx.entropy) if isinstance(idx, Draw) else index
            try:
                return super().prepare_data(index)
            except DataError as error:
                if not self.skip_broken:
                    raise
                self.num_skipped += 1
                message = f'{error}; skipped ({self.num_skipped} so far)'
                print_log(message, logger='current', level=logging.WARNING)
        raise DataError(f'none of the videos in {self.ann_file} can be read')
