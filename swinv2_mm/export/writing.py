"""Write an exported model atomically, after its outputs were verified."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from torch import Tensor, nn

from swinv2_mm.atomic_write import publish
from swinv2_mm.errors import UserError

from . import files
from .files import Format
from .images import samples
from .model import ExportedModel, Part, traceable
from .quantization import check_logits, check_weights, quantize
from .verification import TOLERANCE, largest_difference, logits, top1_rates

_BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        part: What of the model it holds.
        output_names: Names of its outputs.
        difference: Largest difference from the model, relative to the largest output.
        accuracies: Top-1 accuracy of the file and of its 8-bit copy, where there is one.
        lines: The same in words, one line per finding.
    """

    path: Path
    part: Part
    output_names: tuple[str, ...]
    difference: float
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
    program = files.trace(traceable(exported, has_fixed_size=not is_open), shape_px=fixed_px)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix='.export-') as folder:
        path = Path(folder) / out.name
        files.write(program, path, file_format=file_format, output_names=names)
        run = files.opened(path, file_format=file_format)
        worst = largest_difference(model, run, images=images, shapes_px=shapes_px, part=part)
        sizes = ' and '.join(f'{height} x {width}' for height, width in shapes_px)
        found = f'largest relative difference {worst:.2g} on {len(images)} images at {sizes} px'
        if not worst <= TOLERANCE:
            raise UserError(f'{found}, more than {TOLERANCE:g}: nothing was written')
        side = 'height x width open' if is_open else f'{shape_px[0]} x {shape_px[1]} px'
        lines = [f'{out}: {part}, {side}, {_size(path)} -> {", ".join(names)}', found]
        accuracies: list[float] = []
        if int8_cfg is not None:
            small = path.with_suffix('.int8.onnx')
            quantize(path, small)
            check_weights(small)
            runs = [run, files.opened(small, file_format='onnx')]
            lines.append(check_logits(*(logits(r, images, shape_px=shape_px) for r in runs)))
            accuracies, number = top1_rates(
                runs, samples(int8_cfg, loader='val_dataloader'), shape_px=fixed_px
            )
            before, after = accuracies
            lines += [
                f'{out.with_suffix(".int8.onnx")}: {_size(small)} instead of {_size(path)}',
                f'top-1 {100 * after:.2f} % instead of {100 * before:.2f} % '
                f'({100 * (after - before):+.2f}) on {number} validation images',
            ]
        for file in Path(folder).iterdir():
            publish(file, out.parent / file.name)
    return Exported(out, part, tuple(names), worst, tuple(accuracies), tuple(lines))


def _size(path: Path) -> str:
    written = [path, *path.parent.glob(f'{path.name}.data')]
    return f'{sum(file.stat().st_size for file in written) / _BYTES_PER_MB:.1f} MB'
