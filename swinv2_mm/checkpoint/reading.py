"""Read weights files and nested state dicts safely: no code in a pickle is run."""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor
from torch.serialization import MAP_LOCATION

from swinv2_mm.core.unwrapping import WRAPPED

from .download import fetch
from .errors import CheckpointError
from .file_checks import check_file, check_pickle_file
from .load_report import shortened
from .provenance import declared_window_sizes, released_model
from .zoo import url_of

# Where training programs put the weights in what they save, the likeliest first. timm saves what
# is trained and its average, and loads the average; MMEngine's state_dict is the average itself.
_AVERAGES = ('state_dict_ema', 'model_ema')
_WRAPPERS = (
    *_AVERAGES,
    'state_dict',
    'model',
    'module',
    'model_state_dict',
    'ema_state_dict',
)
_MOST_WRAPPERS = 16
# A tensor may repeat its values by strides of 0: up to here it may be copied.
_MOST_REPEATED_BYTES = 1 << 24
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

    The file is read once: all that need a part of it take the result. After a ``#`` may stand the
    entry to take of what a training has saved: ``last.pth.tar#state_dict``.

    Raises:
        CheckpointError: If the source cannot be read without running code, or holds no tensors.
    """
    if isinstance(source, Weights):
        return source
    if isinstance(source, Mapping):
        return _parted(source, origin='the state dict')
    name, key = _split_key(source)
    path = local_path(name)
    content, metadata = read_file(path, map_location=map_location)
    if key is not None:
        content = _entry(content, key, origin=str(path))
    declared = declared_window_sizes(path, metadata=metadata, name=name)
    weights = _parted(content, origin=str(path))
    is_released = released_model(path, name=name) is not None
    return replace(weights, declared_window_sizes=declared, is_released=is_released)


def _split_key(source: str | os.PathLike[str]) -> tuple[str, str | None]:
    text = str(source)
    name, separator, key = text.rpartition('#')
    return (name, key) if separator and not os.path.exists(text) else (text, None)


def _entry(content: Any, key: str, *, origin: str) -> Mapping[Any, Any]:
    entries = content if isinstance(content, Mapping) else {}
    if isinstance(entries.get(key), Mapping):
        entry: Mapping[Any, Any] = entries[key]
        return entry
    known = shortened([_name(k) for k, v in entries.items() if isinstance(v, Mapping)])
    raise CheckpointError(
        f"{origin} has no weights called '{key}'; it has {known or 'nothing of the kind'}"
    )


def _parted(content: Any, *, origin: str) -> Weights:
    """Separate the tensors of a saved object from the rest."""
    state, dropped = _innermost(content, origin=origin)
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _name(key)
        if not isinstance(value, Tensor):
            dropped[name] = 'not a tensor'
            continue
        name = _WRAPPER_MODULES.sub('', name)
        if name in tensors:
            raise CheckpointError(f'{origin} holds {name} twice')
        _check_tensor(value, name=name, origin=origin)
        tensors[name] = value
    if not tensors:
        raise CheckpointError(f'{origin} holds no tensors')
    return Weights(content, tensors, dropped, origin)


def _innermost(content: Any, *, origin: str) -> tuple[Mapping[Any, Any], dict[str, str]]:
    """Find the dictionary of weights in what was saved, and say why the rest is not used."""
    dropped: dict[str, str] = {}
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(content, Mapping):
            raise CheckpointError(f'{origin} holds a {type(content).__name__}, not named weights')
        inner = next(
            (k for k in _WRAPPERS if isinstance(content.get(k), Mapping) and content[k]), None
        )
        if inner is None:
            return content, dropped
        dropped |= {_name(key): 'beside the weights' for key in content if key != inner}
        if inner in _AVERAGES:
            others = [k for k in _WRAPPERS if k != inner and isinstance(content.get(k), Mapping)]
            for other in others:
                dropped[other] = f'{inner}, the average, is taken; FILE#{other} takes this one'
        content = content[inner]
    raise CheckpointError(f'{origin} holds weights within weights without end')


def _name(key: Any) -> str:
    """Return the name of an entry, which in hostile files may be any object."""
    return str(key) if isinstance(key, (str, int)) else f'an entry named by a {type(key).__name__}'


def _check_tensor(value: Tensor, *, name: str, origin: str) -> None:
    """Refuse a tensor that is not made of numbers in memory, as many as it has."""
    if value.is_meta:
        # Names and shapes alone; what they are wanted for refuses them.
        return
    if value.layout != torch.strided or value.is_quantized:
        raise CheckpointError(
            f'{origin}: {name} is a tensor of type {value.dtype} ({value.layout}, {value.device}), '
            'not of ordinary floating-point numbers'
        )
    num_bytes = value.numel() * value.element_size()
    if num_bytes > max(value.untyped_storage().nbytes(), _MOST_REPEATED_BYTES):
        raise CheckpointError(
            f'{origin}: {name} has the shape {tuple(value.shape)}, but the file does not hold as '
            'many values (it repeats them by strides)'
        )


def check_source(source: str | os.PathLike[str]) -> None:
    """Check that there is something to read, without reading or downloading it.

    Raises:
        CheckpointError: If it is no file, folder, URL or name of a released model.
    """
    text, _ = _split_key(source)
    if not os.path.exists(text) and '://' not in text and url_of(text) is None:
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
    if text.startswith(('http://', 'https://')):
        return fetch(text)
    path = Path(source)
    if not os.path.exists(path) and (url := url_of(text)):
        return fetch(url)
    if not os.path.isdir(path):
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
    check_file(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
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
