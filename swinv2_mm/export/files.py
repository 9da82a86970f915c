"""Trace a model, write it to a file, and run such a file."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from swinv2_mm.core.torch_private import sizes_of_one_are_like_others
from swinv2_mm.errors import UserError

Format = Literal['onnx', 'torch-export']
Run = Callable[[Tensor], list[Tensor]]

# A protobuf message ends at 2 GB; larger weights go to a file beside it.
_LARGEST_SINGLE_FILE_BYTES = 1_900_000_000
_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
# The example of open sizes: nothing in it is equal to something else by chance.
_EXAMPLE_BATCH, _EXAMPLE_PX = 3, (101, 165)


def require_onnx() -> None:
    """Raise a ``UserError`` if what ONNX needs is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'ONNX needs {", ".join(missing)}: pip install "onnx>=1.18" "onnxruntime>=1.22" '
            '"onnxscript>=0.5"'
        )


def trace(model: nn.Module, *, shape_px: tuple[int, int] | None) -> torch.export.ExportedProgram:
    """Record the graph of a model whose batch, and with no ``shape_px`` image size, stays open.

    Args:
        model: From ``model.traceable``.
        shape_px: Height and width of the images; ``None`` for any.

    Raises:
        UserError: If it does something that a graph cannot hold.
    """
    dims = {0: torch.export.Dim('batch', min=1)}
    if shape_px is None:
        dims |= {2: torch.export.Dim('height', min=1), 3: torch.export.Dim('width', min=1)}
    example = torch.zeros(_EXAMPLE_BATCH, 3, *(shape_px or _EXAMPLE_PX))
    try:
        # A map of one window is to be like any other, not a special case.
        with torch.no_grad(), sizes_of_one_are_like_others():
            return torch.export.export(model, (example,), dynamic_shapes=(dims,), strict=False)
    except Exception as error:
        # Whatever the parts of a model that are not ours run into; torch has no common type.
        reason = ' '.join(str(error).split())[:300]
        raise UserError(
            f'this model cannot be traced ({type(error).__name__}: {reason}); --what backbone '
            'exports its backbone'
        ) from error


def write(
    program: torch.export.ExportedProgram,
    path: Path,
    *,
    file_format: Format,
    output_names: Sequence[str],
) -> None:
    """Write a traced model.

    Raises:
        UserError: If an operation has no counterpart in ONNX.
    """
    if file_format == 'torch-export':
        torch.export.save(program, path)
        return
    try:
        # torch prints its progress.
        with redirect_stdout(io.StringIO()):
            onnx_program = torch.onnx.export(
                program,
                input_names=['images'],
                output_names=list(output_names),
                dynamo=True,
                external_data=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = ' '.join(str(error).split())[:300]
        raise UserError(f'ONNX cannot express this model: {reason}') from error
    assert onnx_program is not None  # with dynamo=True
    num_bytes = sum(value.nbytes for value in program.state_dict.values())
    onnx_program.save(path, external_data=num_bytes > _LARGEST_SINGLE_FILE_BYTES)


def opened(path: Path, *, file_format: Format) -> Run:
    """Return what a file computes for a batch of RGB images, as float32 from 0 to 255."""
    if file_format == 'torch-export':
        module = torch.export.load(path).module()

        def run(images: Tensor) -> list[Tensor]:
            with torch.inference_mode():
                return list(module(images))

        return run
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: [
        torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})
    ]
