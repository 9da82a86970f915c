"""Save and load sharded checkpoints (torch.distributed.checkpoint): each process its shard."""

from __future__ import annotations

import io
import math
import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from swinv2_mm.atomic_write import atomic_path
from swinv2_mm.core.torch_private import types_of_sharded_index

from .errors import CheckpointError
from .file_checks import check_regular
from .pickle_scan import check_pickles

_INDEX = '.metadata'
# Types that the index, a pickle, may refer to beside dtypes and layouts: none runs code.
_INDEX_TYPES = (
    metadata.ChunkStorageMetadata,
    metadata.Metadata,
    metadata.MetadataIndex,
    metadata.StorageMeta,
    metadata.TensorProperties,
    metadata.TensorStorageMetadata,
    torch.Size,
    PosixPath,
    *types_of_sharded_index(),
)
_INDEX_MODULES = {kind.__module__ for kind in _INDEX_TYPES} | {'pathlib'}
# What is left of a training checkpoint without its tensors.
REST = 'training.pth'
# Names of tensors are paths through what a Runner saves.
_WEIGHTS = 'state_dict/'


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Raise for every class that an index does not need."""
        if module == 'pathlib._local':  # where Python 3.13 has its paths, and 3.12 has nothing
            module = 'pathlib'
        if module in _INDEX_MODULES and '.' not in name:
            found = super().find_class(module, name)
            if found in _INDEX_TYPES or isinstance(found, (torch.dtype, torch.layout)):
                return found
        raise pickle.UnpicklingError(f'to be read it would have to run code ({module}.{name})')


class _Reader(FileSystemReader):
    """torch's file-system reader, unpickling index and tensors without running code."""

    def read_metadata(self) -> metadata.Metadata:
        """Read the index.

        Raises:
            UnpicklingError: If it wants to run code, holds more than tensors, or leads outside.
        """
        path = Path(self.path, _INDEX)
        check_regular(path)
        content = path.read_bytes()
        check_pickles(io.BytesIO(content), num_bytes=len(content))
        index = _IndexUnpickler(io.BytesIO(content)).load()
        promised = 0
        for entry in index.state_dict_metadata.values():
            # Anything else is a pickle that torch would run.
            if not isinstance(entry, metadata.TensorStorageMetadata):
                raise pickle.UnpicklingError('it holds more than tensors')
            promised += math.prod(entry.size) * entry.properties.dtype.itemsize
        names = {place.relative_path for place in index.storage_data.values()}
        for name in names:
            if Path(name).name != name:
                raise pickle.UnpicklingError(f'it leads to {name}')
            check_regular(Path(self.path, name))
        held = sum(Path(self.path, name).stat().st_size for name in names)
        if promised > held:
            raise pickle.UnpicklingError(
                f'its tensors would have {promised:,} bytes, its files have {held:,}'
            )
        index.storage_meta = index.storage_meta or metadata.StorageMeta()
        return index


def is_sharded(path: Path) -> bool:
    """Whether ``path`` is a folder that ``save_sharded`` wrote."""
    return os.path.isfile(path / _INDEX)


def save_sharded(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, of which every process holds a part (DTensors) or all; all must call it.

    Raises:
        OSError: If a process cannot write; on all of them.
    """
    writer = FileSystemWriter(folder, thread_count=1)
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:
        reasons = [reason for reason, _ in error.failures.values()]
        raise OSError(f'{"; ".join(map(str, reasons))}') from error


def load_sharded(
    folder: Path, *, like: Mapping[str, Tensor] | None = None, starts: Sequence[str] = ('',)
) -> dict[str, Tensor]:
    """Read tensors, on any number of processes; all must call it.

    Args:
        folder: Written by ``save_sharded``.
        like: Tensors whose parts (DTensors), type and device those read get, by name or by the
            part of the name up to its last ``/``. What it lacks, or has in another shape, is
            read whole into the memory of the CPU.
        starts: Only names that start so are read.

    Raises:
        CheckpointError: If the folder is incomplete or damaged, or would have to run code.
    """
    like = like or {}
    try:
        index = _Reader(folder).read_metadata().state_dict_metadata
        tensors = {}
        for name, entry in index.items():
            if not name.startswith(tuple(starts)):
                continue
            assert isinstance(entry, metadata.TensorStorageMetadata)
            model = like.get(name, like.get(name[: name.rfind('/') + 1]))
            if model is not None and model.shape == entry.size:
                tensors[name] = torch.empty_like(model)
            else:
                tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
        with warnings.catch_warnings():
            # torch warns that there is one process only.
            warnings.simplefilter('ignore')
            load(tensors, storage_reader=_Reader(folder))
    except CheckpointException as error:
        reason, _ = next(iter(error.failures.values()))
        raise CheckpointError(f'{folder} is damaged or incomplete: {reason}') from None
    except Exception as error:
        # Malformed bytes raise errors of any type.
        raise CheckpointError(f'{folder} was refused or is damaged: {error}') from None
    return tensors


def consolidate(folder: Path, out: Path) -> int:
    """Write the weights of a sharded checkpoint as one safetensors file, in this process alone.

    Holds the whole weights in memory, and neither averages nor the optimiser's state.

    Returns:
        How many tensors the file holds.

    Raises:
        CheckpointError: If ``folder`` is not a sharded checkpoint, or damaged.
        ValueError: If ``out`` is no name of a safetensors file.
    """
    if out.suffix != '.safetensors':
        raise ValueError(f'{out} must end in .safetensors')
    if not is_sharded(folder):
        raise CheckpointError(f'{folder} is not a sharded checkpoint: it has no {_INDEX}')
    tensors = {
        name.removeprefix(_WEIGHTS): value
        for name, value in load_sharded(folder, starts=[_WEIGHTS]).items()
    }
    with atomic_path(out) as part:
        save_file(tensors, part, metadata={'format': 'pt'})
    return len(tensors)
