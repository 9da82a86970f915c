"""Filter routine messages of the libraries from the console; the log file keeps all."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger

from swinv2_mm.config.entries import read_entry
from swinv2_mm.libraries import LIBRARIES

from .log_lines import INDENT, LogLine

# Printed at import at any log level, because they go to no logger.
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
    # Such boxes and polygons are drawn up to the border.
    ('mmengine.visualization.visualizer', 'Warning: The bbox is out of bounds'),
    ('mmengine.visualization.visualizer', 'Warning: The polygon is out of bounds'),
    # MMEngine warns so in every training of several processes.
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
        # Said of every model in one process, whether it has such layers or not.
        r'Distributed training is not used, all SyncBatchNorm \(SyncBN\) layers .*',
        r'The prefix is not set in metric class \w+\.',
        # Gradients are not lost: SafeCheckpointHook saves them.
        r'Resumed iteration number is not divisible by `_accumulative_counts` in .*',
        # Hundreds of lines; ``environment_summary`` names the file that has them.
        r'\n-{60}\nSystem environment:.*',
        r'Config:\n.*',
        r'Hooks will be executed in the following order:\n.*',
        # Said by the lines of ``log_lines`` too.
        r'Exp name: \S*',
        r'Checkpoints will be saved to .*',
        r'\w+_mAP_copypaste: .*',
        # Tables with a row for each of many classes.
        r'\n\+-(?:[^\n]*\n){40,}.*',
    )
]
# Printed by pycocotools each time that it reads a file or scores predictions.
_COCO_MODULES = ('pycocotools.coco', 'pycocotools.cocoeval')
_COCO_PRINTS = re.compile(
    r'(loading annotations into memory|Loading and preparing results|creating index|'
    r'Running per image evaluation|Accumulating evaluation results)\.\.\.|index created!|'
    r'Evaluate annotation type \*\w+\*|done \(t=\S+s\)\.?| Average (Precision|Recall) .*',
    re.IGNORECASE,
)
# (logger, start of the message): of torch about classes of torchao, which transformers imports.
_OTHER_LOGGERS = [('torch.utils._pytree', '<enum ')]
_COLOURS = {'warning': '\033[33m', 'error': '\033[31m'}


class KnownNoise(logging.Filter):
    """Logging filter that drops routine messages of the libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message passes the filter."""
        message = record.getMessage()
        return not any(pattern.fullmatch(message) for pattern in _RECORDS)


class ConsoleFormatter(logging.Formatter):
    """Formatter of the console: time, level unless it is information, and the short line.

    Coloured on a terminal, unless ``NO_COLOR`` is set or the terminal is ``dumb``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        message = record.msg
        text = message.short if isinstance(message, LogLine) else record.getMessage()
        level = record.levelname.lower()
        if record.levelno >= logging.WARNING:
            start, end = (_COLOURS.get(level, ''), '\033[0m') if has_colours() else ('', '')
            text = f'{start}{level}:{end} {text}'
        return f'{self.formatTime(record, "%H:%M:%S")}  {text}'


def has_colours() -> bool:
    """Return whether the standard output is a terminal that shows colours."""
    is_plain = 'NO_COLOR' in os.environ or os.environ.get('TERM') == 'dumb'
    return sys.stdout.isatty() and not is_plain


def tidy(logger: logging.Logger) -> None:
    """Filter routine messages of a logger from the console, not from its file."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _said_once(handler)
        elif not isinstance(handler.formatter, ConsoleFormatter):
            handler.addFilter(KnownNoise())
            handler.setFormatter(ConsoleFormatter())


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

    def print_coco(*values: Any, **settings: Any) -> None:
        if not _COCO_PRINTS.fullmatch(' '.join(map(str, values))):
            print(*values, **settings)

    tidy(MMLogger.get_instance('mmengine'))
    coco = [importlib.import_module(name) for name in _COCO_MODULES if _is_installed(name)]
    others = [(logging.getLogger(n), partial(_does_not_start, s)) for n, s in _OTHER_LOGGERS]
    for logger, passes in others:
        logger.addFilter(passes)
    with warnings.catch_warnings():
        for module, start in _WARNINGS:
            warnings.filterwarnings('ignore', re.escape(start), module=re.escape(module) + '$')
        mmengine.logging.print_log = print_log
        for module in coco:
            module.print = print_coco
        try:
            yield
        finally:
            mmengine.logging.print_log = shown
            for logger, passes in others:
                logger.removeFilter(passes)
            for module in coco:
                vars(module).pop('print', None)


def _does_not_start(start: str, record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(start)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name.partition('.')[0]) is not None


def environment_summary(cfg: Config, *, seed: int | None, work_dir: str, log_file: str) -> str:
    """Summarise what a run is and where, in two lines.

    Args:
        cfg: Config of the run.
        seed: Seed of the run.
        work_dir: Where its checkpoints go.
        log_file: Where the whole environment and config are.
    """
    versions = [f'Python {platform.python_version()}', f'torch {torch.__version__}']
    versions.append(f'mmengine {mmengine.__version__}')
    for name in ('mmcv', *LIBRARIES):
        if version := getattr(sys.modules.get(name), '__version__', None):
            versions.append(f'{name} {version}')
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    is_mixed = (cfg.get('optim_wrapper') or {}).get('type') == 'AmpOptimWrapper'
    precision = read_entry(cfg, 'precision') or ('mixed precision' if is_mixed else 'float32')
    return f'\n{INDENT}'.join(
        [
            f'{cfg.filename}: {get_world_size()} x {device}, {precision}, seed {seed}',
            f'work dir {work_dir}, whole log {Path(log_file).name}',
            ', '.join(versions),
        ]
    )
