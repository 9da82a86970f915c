"""Write an exported model atomically, after its outputs were verified."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from swinv2_mm.atomic_write import publish
from swinv2_mm.errors import UserError
from swinv2_mm.runtime.files import open_exported

from . import files
from .files import Format
from .images import samples
from .model import ExportedModel, Part, traceable
from .quantization import check_logits, check_weights, quantize
from .verification import Agreement, agreement, logits, top1_rates

_BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        part: What of the model it holds.
        output_names: Names of its outputs.
        agreement: How far it is from the model.
        accuracies: Top-1 accuracy of the file and of its 8-bit copy, where there is one.
        lines: The same in words, one line per finding.
    """

    path: Path
    part: Part
    output_names: tuple[str, ...]
    agreement: Agreement
    accuracies: tuple[float, ...]
    lines: tuple[str, ...]

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
    int8_cfg: Config | None,
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
        int8_cfg: Config whose validation set a copy with integer weights is evaluated on; ``None``
            writes no copy.

    Raises:
        UserError: If the model cannot be written, or the file differs from it.
    """
    shapes_px = [shape_px]
    if is_open:
        # A second size that neither windows nor strides divide, of other proportions.
        shapes_px.append((shape_px[0] * 3 // 4 + 1, shape_px[1] * 5 // 4 + 3))
    fixed_px = None if is_open else shape_px
    exported = ExportedModel(model, part=part)
    names = exported.output_names
    has_open_batch = exported.has_open_batch
    program = files.trace(
        traceable(exported, has_fixed_size=not is_open),
        shape_px=fixed_px,
        has_open_batch=has_open_batch,
    )
    facts = {
        **metadata,
        'part': part,
        'outputs': names,
        'size': fixed_px,
        'batch': None if has_open_batch else 1,
        'opset': files.OPSET,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix='.export-') as folder:
        path = Path(folder) / out.name
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
        accuracies: list[float] = []
        if int8_cfg is not None:
            small = path.with_suffix('.int8.onnx')
            quantize(path, small)
            check_weights(small)
            both = [file, open_exported(small)]
            lines.append(check_logits(*(logits(f, images, shape_px=shape_px) for f in both)))
            accuracies, number = top1_rates(
                both, samples(int8_cfg, loader='val_dataloader'), shape_px=fixed_px
            )
            before, after = accuracies
            lines += [
                f'{out.with_suffix(".int8.onnx")}: {_size(small)} instead of {_size(path)}',
                f'top-1 {100 * after:.2f} % instead of {100 * before:.2f} % '
                f'({100 * (after - before):+.2f}) on {number} validation images',
            ]
        for written in Path(folder).iterdir():
            publish(written, out.parent / written.name)
    return Exported(out, part, tuple(names), found, tuple(accuracies), tuple(lines))


def _size(path: Path) -> str:
    written = [path, *path.parent.glob(f'{path.name}.data')]
    return f'{sum(file.stat().st_size for file in written) / _BYTES_PER_MB:.1f} MB'
