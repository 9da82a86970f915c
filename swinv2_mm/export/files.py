"""Trace a model and write it to a file."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from swinv2_mm.core.torch_private import sizes_of_one_are_like_others
from swinv2_mm.errors import UserError, one_line
from swinv2_mm.runtime.files import METADATA

Format = Literal['onnx', 'torch-export']
# RoiAlign of opset 16 and GridSample are in it, and every runtime of today reads it.
OPSET = 18

# A protobuf message ends at 2 GB; larger weights go to a file beside it.
_LARGEST_SINGLE_FILE_BYTES = 1_900_000_000
# Example for open sizes: no two of its numbers are equal by chance.
_EXAMPLE_BATCH, _EXAMPLE_PX = 3, (101, 165)


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # torchvision uses a deprecated name of torch.
        warnings.filterwarnings('ignore', '.*create_unbacked_symint', category=FutureWarning)
        yield


def trace(
    model: nn.Module,
    *,
    shape_px: tuple[int, int] | None,
    has_open_batch: bool = True,
    smallest_px: int = 1,
) -> torch.export.ExportedProgram:
    """Record the graph of a model whose batch and, with no ``shape_px``, image size stay open.

    Args:
        model: What ``model.traceable`` returned.
        shape_px: Height and width of the images; ``None`` for any.
        has_open_batch: Whether it takes several images; otherwise the batch is one.
        smallest_px: The least of a side that is left open.

    Raises:
        UserError: If it does something that a graph cannot hold.
    """
    dims = {0: torch.export.Dim('batch', min=1)} if has_open_batch else {}
    if shape_px is None:
        sides = [torch.export.Dim(name, min=smallest_px) for name in ('height', 'width')]
        dims |= dict(enumerate(sides, start=2))
    batch = _EXAMPLE_BATCH if has_open_batch else 1
    example = torch.zeros(batch, 3, *(shape_px or _EXAMPLE_PX))
    try:
        # A map of one window must not be specialised.
        with torch.no_grad(), sizes_of_one_are_like_others(), _without_warnings():
            return torch.export.export(model, (example,), dynamic_shapes=(dims,), strict=False)
    except Exception as error:
        # Parts of a model that are not ours may raise anything; torch has no common type.
        reason = one_line(error)[:300]
        raise UserError(
            f'this model cannot be traced ({type(error).__name__}: {reason}); --what backbone '
            'exports its backbone'
        ) from error


def write(
    program: torch.export.ExportedProgram,
    path: Path,
    *,
    file_format: Format,
    metadata: Mapping[str, Any],
) -> None:
    """Write a traced model.

    Args:
        program: The graph.
        path: The file.
        file_format: Its kind.
        metadata: What the file says about itself, with the names of the ``outputs``.

    Raises:
        UserError: If an operation has no counterpart in ONNX.
    """
    if file_format == 'torch-export':
        torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})
        return
    try:
        # torch prints its progress.
        with redirect_stdout(io.StringIO()), _without_warnings():
            onnx_program = torch.onnx.export(
                program,
                input_names=['images'],
                output_names=list(metadata['outputs']),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = one_line(error)[:300]
        raise UserError(f'ONNX cannot express this model: {reason}') from error
    assert onnx_program is not None  # with dynamo=True
    onnx_program.model.metadata_props[METADATA] = json.dumps(metadata)
    num_bytes = sum(value.nbytes for value in program.state_dict.values())
    onnx_program.save(path, external_data=num_bytes > _LARGEST_SINGLE_FILE_BYTES)
