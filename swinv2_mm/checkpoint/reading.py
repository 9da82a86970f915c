"""Read weights files and nested state dicts safely: no code in a pickle is run."""

from __future__ import annotations

import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import safetensors
import torch
from torch import Tensor
from torch.serialization import MAP_LOCATION

from swinv2_mm.core.unwrapping import WRAPPED

from .download import fetch
from .errors import CheckpointError
from .provenance import declared_window_sizes, released_model
from .zoo import url_of

_CHUNK_BYTES = 1 << 20
# Where training programs put the weights in what they save, the likeliest first.
# Averaged weights (timm, the official code) only where there are no others.
_WRAPPERS = (
    'state_dict',
    'model',
    'module',
    'model_state_dict',
    'state_dict_ema',
    'model_ema',
    'ema_state_dict',
)
# What a folder made by save_pretrained of Hugging Face's libraries holds.
_NAMES_IN_FOLDER = ('model.safetensors', 'pytorch_model.bin')
_IS_TRUSTED: ContextVar[bool] = ContextVar('is_trusted', default=False)
# Modules that only wrap another one; they may stand anywhere in a name.
_WRAPPER_MODULES = re.compile(rf'(?:^|(?<=\.))(?:{"|".join(WRAPPED)})\.')


@dataclass
class Weights:
    """The contents of one file or state dict: opened once, then passed on.

    Attributes:
        content: As it was saved; of a training checkpoint also ``meta``, ``optimizer`` and so on.
        tensors: Name to tensor, under the names that the file gives them.
        dropped: Entries that are no weights, each with the reason.
        origin: What to call the file in a message.
        declared_window_sizes: Pretrained window size per stage, as what comes with the weights
            says: a safetensors file's metadata of ours, a ``config.json`` beside it, or the name
            of a released model. Entries of the state dict itself take precedence.
        is_released: Whether the name of the file, or what lies beside it, is a released model's.
    """

    content: Any
    tensors: dict[str, Tensor]
    dropped: dict[str, str]
    origin: str
    declared_window_sizes: Any = None
    is_released: bool = False


Source = str | os.PathLike[str] | Mapping[str, Any] | Weights


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
# Settings of the official code and of timm: always inert.
_SETTINGS_TYPES = ('argparse.Namespace', 'pathlib.PosixPath', 'builtins.slice')


def _safe_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    return [
        (OrderedDict, 'yacs.config.CfgNode'),
        (_statistic, 'builtins.getattr'),
        *((_Inert, name) for name in _SETTINGS_TYPES),
        *((_imported(name) or _Inert, name) for name in _DATA_TYPES),
    ]


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition('.')
    # numpy answers to both names of its core.
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


def open_weights(source: Source, *, map_location: MAP_LOCATION = 'cpu') -> Weights:
    """Read a file, a released model by its name, a URL, a folder of Hugging Face, or a state dict.

    The file is read once: all that need a part of it take the result.

    Raises:
        CheckpointError: If the source cannot be read without running code, or holds no tensors.
    """
    if isinstance(source, Weights):
        return source
    if isinstance(source, Mapping):
        return _parted(source, origin='the state dict')
    path = local_path(source)
    content, metadata = read_file(path, map_location=map_location)
    declared = declared_window_sizes(path, metadata=metadata, name=str(source))
    weights = _parted(content, origin=str(path))
    is_released = released_model(path, name=str(source)) is not None
    return replace(weights, declared_window_sizes=declared, is_released=is_released)


def _parted(content: Any, *, origin: str) -> Weights:
    """Separate the tensors of a saved object from the rest."""
    state, beside = _innermost(content, origin=origin)
    tensors: dict[str, Tensor] = {}
    dropped = dict.fromkeys(beside, 'beside the weights')
    for name, value in state.items():
        name = str(name)
        if not isinstance(value, Tensor):
            dropped[name] = 'not a tensor'
            continue
        name = _WRAPPER_MODULES.sub('', name)
        if name in tensors:
            raise CheckpointError(f'{origin} holds {name} twice')
        tensors[name] = value
    if not tensors:
        raise CheckpointError(f'{origin} holds no tensors')
    return Weights(content, tensors, dropped, origin)


def _innermost(content: Any, *, origin: str) -> tuple[Mapping[str, Any], list[str]]:
    """Find the dictionary of weights in what was saved, and name what lies beside it."""
    beside: list[str] = []
    while isinstance(content, Mapping):
        inner = next((k for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            return content, beside
        beside += [str(name) for name in content if name != inner]
        content = content[inner]
    raise CheckpointError(f'{origin} holds a {type(content).__name__}, not named weights')


def check_source(source: str | os.PathLike[str]) -> None:
    """Check that there is something to read, without reading or downloading it.

    Raises:
        CheckpointError: If it is no file, folder, URL or name of a released model.
    """
    text = str(source)
    if not Path(source).exists() and '://' not in text and url_of(text) is None:
        raise CheckpointError(f'checkpoint {text} does not exist')


def local_path(source: str | os.PathLike[str]) -> Path:
    """Return the path of a weight file, downloaded if need be.

    Args:
        source: A file, a folder that holds one under Hugging Face's names, a URL, or the name
            of a released model such as ``swinv2-base-w12-192_in22k``.

    Raises:
        CheckpointError: If it cannot be downloaded, or the folder holds no weights.
    """
    text = str(source)
    if urlparse(text).scheme in ('http', 'https'):
        return fetch(text)
    path = Path(source)
    if not path.exists() and (url := url_of(text)):
        return fetch(url)
    if not path.is_dir():
        return path
    for name in _NAMES_IN_FOLDER:
        if (path / name).is_file():
            return path / name
    if (path / '.metadata').is_file():
        raise CheckpointError(
            f'{path} is a sharded checkpoint: join it by tools/checkpoint.py consolidate'
        )
    raise CheckpointError(f'{path} is a folder without {" or ".join(_NAMES_IN_FOLDER)}')


def read_file(path: Path, *, map_location: MAP_LOCATION = 'cpu') -> tuple[Any, dict[str, str]]:
    """Read a file as it was saved, and what it says about itself.

    Args:
        path: A safetensors or PyTorch file.
        map_location: Where tensors of a PyTorch file go.

    Raises:
        CheckpointError: If the file is missing, damaged, or would have to run code.
    """
    try:
        with path.open('rb') as file:
            start = file.read(64).lstrip().lower()
    except OSError as error:
        raise CheckpointError(f'cannot read {path}: {error.strerror}') from None
    if not start:
        raise CheckpointError(f'{path} is empty')
    if start.startswith((b'<!doctype', b'<html', b'<?xml')):
        raise CheckpointError(f'{path} is a web page, not weights: download it again')
    if start.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a pointer of Git LFS: fetch the file itself')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    return _read_pickle(path, map_location), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework='pt') as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError):
        raise CheckpointError(f'{path} is damaged or not a safetensors file') from None


def _check_sums(path: Path) -> None:
    """Compare the checksums in a file of ``torch.save``, which torch itself does not.

    Raises:
        BadZipFile: If one is wrong.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            # 0: written without, by torch.serialization.set_crc32_options(False).
            if entry.CRC:
                with archive.open(entry) as content:
                    while content.read(_CHUNK_BYTES):
                        pass


def _read_pickle(path: Path, map_location: MAP_LOCATION) -> Any:
    try:
        _check_sums(path)
        if _IS_TRUSTED.get():
            return torch.load(path, map_location=map_location, weights_only=False)
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
    except Exception:
        # torch raises errors of a dozen types on malformed bytes.
        raise CheckpointError(f'{path} is damaged or not a file of weights') from None
