"""Write an exported model atomically, after its outputs were verified."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from swinv2_mm.atomic_write import publish
from swinv2_mm.errors import UserError
from swinv2_mm.runtime.files import open_exported

from . import files
from .files import Format
from .images import resized
from .model import ExportedModel, Part, traceable
from .quantization import check_weights, halve, integer_weights, quantize
from .verification import Agreement, agreement, as_input

Precision = Literal['int8', 'fp16']

_BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        part: What of the model it holds.
        output_names: Names of its outputs.
        agreement: How far it is from the model.
        copies: Files beside it that compute in fewer bits.
        lines: The same in words, one line per finding.
        metrics: Metrics on the test set, of the file and of each copy; empty without copies.
    """

    path: Path
    part: Part
    output_names: tuple[str, ...]
    agreement: Agreement
    copies: tuple[Path, ...]
    lines: tuple[str, ...]
    metrics: Mapping[Path, Mapping[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return '\n'.join(self.lines)


def write_verified(
    model: nn.Module,
    out: Path,
    *,
    file_format: Format,
    part: Part,
    images: Sequence[Tensor],
    shape_px: tuple[int, int],
    is_open: bool,
    metadata: Mapping[str, Any],
    precisions: Sequence[Precision] = (),
) -> Exported:
    """Write a model to a file, and run the file on images; it appears whole and verified.

    Args:
        model: A trained model; it stays as it is.
        out: The file.
        file_format: Its kind.
        part: What of the model is written.
        images: BGR, each (3, H, W), uint8.
        shape_px: Height and width of the images the file is verified with.
        is_open: Whether the file takes other sizes too.
        metadata: What the file says about itself, besides what this function knows.
        precisions: Copies in fewer bits that are written too, of an ONNX file.

    Raises:
        UserError: If the model cannot be written, or the file differs from it.
    """
    exported = ExportedModel(model, part=part)
    shapes_px, fixed_px = [shape_px], None if is_open else shape_px
    if is_open:
        # A second size that neither windows nor strides divide, of other proportions.
        other = (shape_px[0] * 3 // 4 + 1, shape_px[1] * 5 // 4 + 3)
        shapes_px.append((max(other[0], exported.smallest_px), other[1]))
    names = exported.output_names
    has_open_batch = exported.has_open_batch
    facts = {
        **metadata,
        'part': part,
        'outputs': names,
        'size': fixed_px,
        'batch': None if has_open_batch else 1,
        'opset': files.OPSET,
    }
    # First: tracing takes minutes.
    with _folder_beside(out) as folder:
        program = files.trace(
            traceable(exported, fixed_px=fixed_px),
            shape_px=fixed_px,
            has_open_batch=has_open_batch,
            smallest_px=exported.smallest_px,
        )
        path = folder / out.name
        files.write(program, path, file_format=file_format, metadata=facts)
        file = open_exported(path)
        found = agreement(model, file, images=images, shapes_px=shapes_px, part=part)
        sizes = ' and '.join(f'{height} x {width}' for height, width in shapes_px)
        sentence = f'{found} on {len(images)} images at {sizes} px'
        if not found.is_close:
            raise UserError(f'{sentence}: too far from the model, nothing was written')
        side = 'height x width open' if is_open else f'{shape_px[0]} x {shape_px[1]} px'
        side += ', batch open' if has_open_batch else ', one image at a time'
        lines = [f'{out}: {part}, {side}, {_size(path)} -> {", ".join(names)}', sentence]
        inputs = [as_input(resized(image, shape_px=shape_px)) for image in images]
        copies = [path.with_suffix(f'.{precision}.onnx') for precision in precisions]
        for precision, copy in zip(precisions, copies, strict=True):
            lines.append(_write_copy(path, copy, precision=precision, inputs=inputs))
        for written in folder.iterdir():
            publish(written, out.parent / written.name)
    places = tuple(out.parent / copy.name for copy in copies)
    return Exported(out, part, tuple(names), found, places, tuple(lines))


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside a file that is to be written.

    Raises:
        UserError: If the file cannot be written.
    """
    if out.is_dir():
        raise UserError(f'{out} is a folder: name a file in it')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out.parent, prefix='.export-')
    except OSError as error:
        raise UserError(f'{out} cannot be written: {error.strerror or error}') from error
    with folder as name:
        yield Path(name)


def _write_copy(path: Path, copy: Path, *, precision: Precision, inputs: Sequence[Tensor]) -> str:
    """Write a copy of a file in fewer bits; returns what was written, as a sentence."""
    kept = ''
    if precision == 'int8':
        in_float = quantize(path, copy, images=inputs)
        check_weights(copy)
        number = len(integer_weights(copy))
        kept = f'; {number} layers have 8 bits, {len(in_float)} stay in float32'
    else:
        halve(path, copy)
    return f'{copy.name}: {_size(copy)} instead of {_size(path)}{kept}'


def _size(path: Path) -> str:
    written = [path, *path.parent.glob(f'{path.name}.data')]
    return f'{sum(file.stat().st_size for file in written) / _BYTES_PER_MB:.1f} MB'
