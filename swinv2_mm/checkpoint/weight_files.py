"""Read files of weights, of one file or several, without running anything that they contain."""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor
from torch.serialization import MAP_LOCATION

from .errors import CheckpointError
from .file_checks import check_file, check_pickle_file, check_regular
from .mindspore_file import is_mindspore, read_mindspore

_IS_TRUSTED: ContextVar[bool] = ContextVar('is_trusted', default=False)
# What Hugging Face's libraries write beside weights that they save in several files.
_INDEX = '.index.json'
_MOST_INDEX_BYTES = 1 << 26


class _Inert:
    """Placeholder for an unpickled object that is not needed, so that its code never runs."""

    def __new__(cls, *_: Any) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_NUMPY_CORES = ('numpy.core.multiarray', 'numpy._core.multiarray')
# What a pickle may refer to beside tensors and plain data. Data: the real type where its package
# has been imported, so that a training can be resumed, inert elsewhere.
_DATA_TYPES = (
    _HISTORY,
    'numpy.ndarray',
    'numpy.dtype',
    *(f'{core}.{function}' for core in _NUMPY_CORES for function in ('_reconstruct', 'scalar')),
    *(f'numpy.dtypes.{kind}DType' for kind in ('Float32', 'Float64', 'Int64', 'UInt32', 'Bool')),
)
# Settings of the official code and of timm: always inert. Paths are named twice: Python 3.13 has
# them in a module of its own.
_SETTINGS_TYPES = (
    'argparse.Namespace',
    'pathlib.PosixPath',
    'pathlib._local.PosixPath',
    'builtins.slice',
)


def _safe_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    return [
        (OrderedDict, 'yacs.config.CfgNode'),
        (_statistic, 'builtins.getattr'),
        *((_Inert, name) for name in _SETTINGS_TYPES),
        *((_imported(name) or _Inert, name) for name in _DATA_TYPES),
    ]


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition('.')
    # The core of numpy has been renamed; both names are accepted.
    places = _NUMPY_CORES if module in _NUMPY_CORES else (module,)
    found = next((sys.modules[place] for place in places if place in sys.modules), None)
    return getattr(found, attribute, None)


def _statistic(owner: Any, name: str) -> Any:
    """Stand in for ``getattr``, by which a logged history refers to its statistics."""
    is_statistic = name in ('current', 'max', 'mean', 'min')
    return getattr(owner, name) if is_statistic and owner is _imported(_HISTORY) else _Inert()


def trust_files() -> None:
    """Let files run code while they are read, in the present context (``contextvars``)."""
    _IS_TRUSTED.set(True)


def read_file(path: Path, *, map_location: MAP_LOCATION = 'cpu') -> tuple[Any, dict[str, str]]:
    """Read a file as it was saved, and what it says about itself.

    Args:
        path: A safetensors, PyTorch or MindSpore file, or the index of several.
        map_location: Where tensors of a PyTorch file go.

    Raises:
        CheckpointError: If the file is missing, damaged, or would have to run code.
    """
    if path.name.endswith(_INDEX):
        return _read_parts(path, map_location), {}
    check_file(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if is_mindspore(path):
        return read_mindspore(path), {}
    return _read_pickle(path, map_location), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework='pt') as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, MemoryError):
        raise CheckpointError(f'{path} is damaged or not a safetensors file') from None


def _read_pickle(path: Path, map_location: MAP_LOCATION) -> Any:
    try:
        if _IS_TRUSTED.get():
            return torch.load(path, map_location=map_location, weights_only=False)
        check_pickle_file(path)
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        # torch has no other way to tell the two apart.
        wanted = re.search(r'(?:GLOBAL|unrecognized function) ([^\s,]+)', str(error))
        if wanted is None:
            raise CheckpointError(f'{path} is damaged or not a file of weights') from None
        raise CheckpointError(
            f'{path} was refused: to be read it would have to run code ({wanted[1]}), and '
            'weights never need that; if you trust its source, add --trust-checkpoint'
        ) from None
    except CheckpointError:
        raise
    except Exception:
        # torch raises errors of a dozen types on malformed bytes.
        raise CheckpointError(f'{path} is damaged or not a file of weights') from None


def _read_parts(index: Path, map_location: MAP_LOCATION) -> dict[str, Tensor]:
    """Read weights that Hugging Face's libraries have saved in several files.

    Args:
        index: Names the file of each tensor.
        map_location: Where tensors of PyTorch files go.

    Raises:
        CheckpointError: If the index or a file is missing or damaged, or they contradict each
            other.
    """
    files = _files_of_index(index)
    weights: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        path = index.parent / name
        content, _ = read_file(path, map_location=map_location)
        if not isinstance(content, dict):
            raise CheckpointError(f'{path} holds a {type(content).__name__}, not named weights')
        if twice := weights.keys() & content.keys():
            raise CheckpointError(
                f'{path} holds {min(twice, key=str)}, as another file that {index} names does'
            )
        weights |= content
    if lacking := [name for name in files if name not in weights]:
        raise CheckpointError(
            f'{index.parent / files[lacking[0]]} lacks {lacking[0]}, which {index} says it holds'
        )
    return weights


def _files_of_index(index: Path) -> dict[str, str]:
    check_regular(index)
    try:
        if index.stat().st_size > _MOST_INDEX_BYTES:
            raise ValueError
        files = json.loads(index.read_bytes())['weight_map']
        if not files or not all(isinstance(name, str) for name in files.values()):
            raise ValueError
    except OSError as error:
        raise CheckpointError(f'cannot read {index}: {error.strerror}') from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f'{index} is no index of weights: it has no weight_map') from None
    for name in files.values():
        # Only files beside the index are read.
        if Path(name).name != name or name.endswith(_INDEX):
            raise CheckpointError(f'{index} was refused: it leads to {name}')
    result: dict[str, str] = files
    return result
