"""Read weights files and nested state dicts safely: no code in a pickle is run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import MAP_LOCATION

from swinv2_mm.core.unwrapping import WRAPPED

from .download import fetch
from .errors import CheckpointError
from .load_report import shortened
from .provenance import declared_window_sizes, released_model
from .weight_files import read_file
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
_NAMES_IN_FOLDER = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
# In a work dir: MMEngine's, holds the path of the newest checkpoint on the machine that trained.
POINTER = 'last_checkpoint'
_MOST_POINTER_BYTES = 1 << 13
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
        dropped |= {
            _name(key): f'other weights; FILE#{_name(key)} takes these'
            if _holds_weights(value)
            else 'beside the weights'
            for key, value in content.items()
            if key != inner
        }
        if inner in _AVERAGES:
            others = [k for k in _WRAPPERS if k != inner and isinstance(content.get(k), Mapping)]
            for other in others:
                dropped[other] = f'{inner}, the average, is taken; FILE#{other} takes this one'
        content = content[inner]
    raise CheckpointError(f'{origin} holds weights within weights without end')


def _holds_weights(value: Any) -> bool:
    """Return whether an entry beside the weights, such as an average, is a set of them too."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(part, Tensor) for part in value.values()) or any(
        isinstance(value.get(key), Mapping) for key in _WRAPPERS
    )


def _name(key: Any) -> str:
    """Return the name of an entry, which in hostile files may be any object."""
    return str(key) if isinstance(key, (str, int)) else f'an entry named by a {type(key).__name__}'


def _check_tensor(value: Tensor, *, name: str, origin: str) -> None:
    """Refuse a tensor that is not made of numbers in memory, as many as it has."""
    if value.is_meta:
        # Meta tensors have names and shapes only; whatever needs values refuses them.
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


def pointed_at(path: Path) -> Path:
    """Return the checkpoint that a work dir or its ``last_checkpoint`` names, or the path itself.

    Raises:
        CheckpointError: If the checkpoint is neither beside it nor where it was saved.
    """
    pointer = path / POINTER if os.path.isdir(path) else path
    if pointer.name != POINTER or not os.path.isfile(pointer):
        return path
    with pointer.open(errors='replace') as file:
        named = Path(file.read(_MOST_POINTER_BYTES).strip())
    # The folder may have been moved.
    for found in (pointer.parent / named.name, named):
        if named.name and os.path.exists(found):
            return found
    raise CheckpointError(f'{pointer} names {named}, which does not exist: name the checkpoint')


def local_path(source: str | os.PathLike[str]) -> Path:
    """Return the path of a weight file, downloaded if need be.

    Args:
        source: A file, a folder that holds one under Hugging Face's names, a work dir, its file
            ``last_checkpoint``, a URL, or the name of a released model such as
            ``swinv2-base-w12-192_in22k``.

    Raises:
        CheckpointError: If it cannot be downloaded, or the folder holds no weights.
    """
    text = str(source)
    if text.startswith(('http://', 'https://')):
        return fetch(text)
    path = Path(source)
    if not os.path.exists(path) and (url := url_of(text)):
        return fetch(url)
    path = pointed_at(path)
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
