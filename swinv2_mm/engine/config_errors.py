"""Translate errors that the libraries raise for a wrong config into one-line UserErrors."""

from __future__ import annotations

import json
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import BaseLoop

from swinv2_mm.config.datasets import annotation_files
from swinv2_mm.errors import DataError, UserError

_LIBRARIES = tuple(sysconfig.get_path(name) for name in ('purelib', 'platlib', 'stdlib'))
_OWN = str(Path(__file__).resolve().parents[1])
# Errors that the libraries raise for invalid values.
_KINDS = (ValueError, TypeError, KeyError, AssertionError, AttributeError, ZeroDivisionError)
# Messages of a call that passes on what a config says.
_SIGNATURE = re.compile(r'unexpected keyword argument|missing \d+ required')
# Methods of loops, which run once all is built: their errors are not of the config.
_STEPS = ('run_epoch', 'run_iter')


@contextmanager
def config_errors(cfg: Config) -> Iterator[None]:
    """Raise a ``UserError`` for values of a config that a library refuses to build from.

    Libraries are built from a config until the first step, and raise half a dozen types at values
    that they cannot take. What our own code or a user's raises is a bug, except for a
    ``ValueError``; so is whatever is raised after the first step has begun.

    Args:
        cfg: The config that is built from.

    Raises:
        DataError: If an annotation file is not JSON.
        UserError: If a value in the config does not fit the class that takes it.
    """
    try:
        yield
    except UserError:
        raise
    except _KINDS as error:
        if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
            _check_annotations(cfg, error)
        if not _is_of_config(error):
            raise
        message = str(error.args[0] if error.args else '').partition('. Please check')[0]
        if ' ' not in message:
            message = f'{type(error).__name__} {message}'
        raise UserError(f'config {cfg.filename}: {message}') from error


def _is_of_config(error: Exception) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(
        frame.f_code.co_name in _STEPS and isinstance(frame.f_locals.get('self'), BaseLoop)
        for frame in frames
    ):
        return False
    *_, (last, _) = traceback.walk_tb(_original(error).__traceback__)
    file = last.f_code.co_filename
    is_of_library = file.startswith(_LIBRARIES) and not file.startswith(_OWN)
    return is_of_library or isinstance(error, ValueError) or bool(_SIGNATURE.search(str(error)))


def _original(error: BaseException) -> BaseException:
    """Return the error that MMEngine has raised again, with its own place added to the message."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        if not earlier.args or str(earlier.args[0]) not in str(error):
            break
        error = earlier
    return error


def _check_annotations(cfg: Config, error: Exception) -> None:
    """Raise a ``DataError`` that names the annotation file which is not JSON, if there is one."""
    for path in annotation_files(cfg):
        try:
            json.loads(Path(path).read_bytes())
        except ValueError as reason:
            raise DataError(f'annotation file {path} is not JSON: {reason}') from error
