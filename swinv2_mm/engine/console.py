"""Filter routine messages of the libraries from the console; the log file keeps all."""

from __future__ import annotations

import logging
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mmengine
import torch
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger

from swinv2_mm.libraries import LIBRARIES

# Printed at import whatever the log level, for want of a logger.
_PRINTS = {'Could not import OneDL', 'Could not import OneDL. Skipping OneDL datasets.'}
# (module that warns, start of the message): known, and nothing that a user could change.
_WARNINGS = [
    ('mmdet.evaluation.metrics.faster_coco_metric', 'faster_coco_eval is not installed'),
    (
        'mmdet.models.roi_heads.mask_heads.fcn_mask_head',
        'To copy construct from a tensor, it is recommended to use sourceTensor',
    ),
    ('mmseg.models.losses.cross_entropy_loss', 'Default ``avg_non_ignore`` is False'),
    ('mmcv.image.photometric', "Only use 'alpha' for pillow backend"),
    # They are drawn up to the border.
    ('mmengine.visualization.visualizer', 'Warning: The bbox is out of bounds'),
    ('mmengine.visualization.visualizer', 'Warning: The polygon is out of bounds'),
    # Of several processes.
    ('mmengine.utils.dl_utils.setup_env', 'Setting MKL_NUM_THREADS environment variable'),
    ('mmengine.utils.dl_utils.setup_env', 'Setting OMP_NUM_THREADS environment variable'),
    ('mmengine.model.wrappers.distributed', '`broadcast_buffers` is deprecated'),
    # Gradients are accumulated: MMEngine counts the updates to come.
    ('mmengine.optim.scheduler.param_scheduler', 'Detected call of `scheduler.step()` before'),
]
# Whole messages of the loggers of MMEngine and the libraries.
_RECORDS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r'"FileClient" will be deprecated in future\. Please use io functions in https://\S+',
        r'"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated in '
        r'future\.',
        # The libraries have no registries of their own for these two kinds.
        r'Failed to search registry with scope "mm(det|seg|pretrain)" in the '
        r'"(function|inferencer)" registry tree\..*',
        r'Using env variable `SWINV2_DATA` with value of .* to replace item in config\.',
        # Of every model in one process, whether it has any or not.
        r'Distributed training is not used, all SyncBatchNorm \(SyncBN\) layers .*',
        r'The prefix is not set in metric class \w+\.',
        # Gradients are not lost: SafeCheckpointHook saves them.
        r'Resumed iteration number is not divisible by `_accumulative_counts` in .*',
        # Hundreds of lines; ``environment_summary`` names the file that has them.
        r'\n-{60}\nSystem environment:.*',
        r'Config:\n.*',
        r'Hooks will be executed in the following order:\n.*',
    )
]


class KnownNoise(logging.Filter):
    """Logging filter that drops routine messages of the libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message passes the filter."""
        message = record.getMessage()
        return not any(pattern.fullmatch(message) for pattern in _RECORDS)


def tidy(logger: logging.Logger) -> None:
    """Filter routine messages of a logger from the console, not from its file."""
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(KnownNoise())
        else:
            handler.handleError = _said_once(handler)


def _said_once(handler: logging.Handler) -> Callable[[logging.LogRecord], None]:
    """Report once that a log file cannot be written, such as on a full disk; the run goes on."""

    def say(record: logging.LogRecord) -> None:
        handler.handleError = lambda record: None
        print(f'warning: lines are missing from the log file: {sys.exc_info()[1]}', file=sys.stderr)

    return say


@contextmanager
def quiet_console() -> Iterator[None]:
    """Filter routine messages of third parties from the console while a command runs."""
    shown = mmengine.logging.print_log

    def print_log(
        msg: str, logger: logging.Logger | str | None = None, level: int = logging.INFO
    ) -> None:
        if not (logger is None and msg in _PRINTS):
            shown(msg, logger, level)

    tidy(MMLogger.get_instance('mmengine'))
    with warnings.catch_warnings():
        for module, start in _WARNINGS:
            warnings.filterwarnings('ignore', re.escape(start), module=re.escape(module) + '$')
        mmengine.logging.print_log = print_log
        try:
            yield
        finally:
            mmengine.logging.print_log = shown


def environment_summary(*, seed: int | None, log_file: str | None) -> str:
    """Summarise the versions, device and seed of a run in one line.

    Args:
        seed: Of the run.
        log_file: Where the whole environment and config are.
    """
    versions = [f'Python {platform.python_version()}', f'torch {torch.__version__}']
    versions.append(f'mmengine {mmengine.__version__}')
    for name in ('mmcv', *LIBRARIES):
        if version := getattr(sys.modules.get(name), '__version__', None):
            versions.append(f'{name} {version}')
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    return (
        f'{", ".join(versions)}; {get_world_size()} x {device}; seed {seed}; '
        f'whole environment and config in {log_file}'
    )
