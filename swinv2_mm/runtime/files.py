"""Open an exported file: what it says about itself, and what it computes."""

from __future__ import annotations

import importlib.util
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinv2_mm.errors import UserError, one_line

SUFFIXES = {'onnx': '.onnx', 'torch-export': '.pt2'}
# Key of the metadata of an ONNX file, and name of the file inside a .pt2.
METADATA = 'swinv2_mm'

Run = Callable[[Tensor], list[Tensor]]
# From a file to its metadata, the names of its outputs, and what it computes.
Reader = Callable[[Path], tuple[str, Sequence[str], Run]]

# Types of its entries, where it has them.
_KINDS = {'part': str, 'config': str, 'classes': list, 'outputs': list}
_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
# What runs ONNX files: ``onnxruntime``, or ``openvino``.
RUNTIME_VARIABLE = 'SWINV2_MM_ONNX_RUNTIME'


@dataclass(frozen=True)
class ExportedFile:
    """An exported file that is open.

    Attributes:
        path: The file.
        metadata: What it says about itself; empty if it says nothing.
        output_names: Names of its outputs.
        run: Computes the outputs of a batch of RGB images, float32 from 0 to 255.
    """

    path: Path
    metadata: dict[str, Any]
    output_names: tuple[str, ...]
    run: Run

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Run the file: (B, 3, H_px, W_px) -> outputs by their names."""
        return dict(zip(self.output_names, self.run(images), strict=True))


def is_exported(path: str | Path) -> bool:
    """Return whether a name is that of an exported file."""
    return Path(path).suffix in SUFFIXES.values()


def require_onnx() -> None:
    """Raise a ``UserError`` if what ONNX needs is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'ONNX needs {", ".join(missing)}: pip install "onnx>=1.18" "onnxruntime>=1.22" '
            '"onnxscript>=0.5"'
        )


def open_exported(path: str | Path, *, runtime: str | None = None) -> ExportedFile:
    """Open a file that ``swinv2-mm export`` wrote.

    Args:
        path: The file.
        runtime: What runs an ONNX file, ``onnxruntime`` or ``openvino``; default that of the
            environment, else ``onnxruntime``.

    Raises:
        UserError: If it is no such file, or a package that runs it is missing.
    """
    path = Path(path)
    with _readable(path):
        read: Reader = _open_torch
        if _is_onnx(path):
            read = _onnx_reader(runtime or os.environ.get(RUNTIME_VARIABLE, 'onnxruntime'))
        text, names, run = read(path)
        metadata = _parsed(text)
    return ExportedFile(path, metadata, tuple(names or metadata.get('outputs', ())), run)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what a file that ``swinv2-mm export`` wrote says about itself.

    Raises:
        UserError: As ``open_exported``.
    """
    path = Path(path)
    if _is_onnx(path):
        return open_exported(path).metadata
    # The metadata is read much sooner than the graph.
    with _readable(path):
        return _parsed(_metadata_of_archive(path))


def _parsed(text: str) -> dict[str, Any]:
    """Parse metadata, which anybody may have written."""
    metadata = json.loads(text or '{}')
    is_sound = isinstance(metadata, dict) and all(
        isinstance(metadata.get(name, kind()), kind) for name, kind in _KINDS.items()
    )
    if not is_sound or [type(s) for s in metadata.get('size') or (1, 1)] != [int, int]:
        raise ValueError(f'its metadata {METADATA!r} is malformed')
    return metadata


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file into a ``UserError``."""
    if not path.is_file():
        raise UserError(f'{path}: no such file')
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # What the two runtimes raise for a broken file has no common type.
        reason = one_line(error)[:200]
        raise UserError(f'{path}: not an exported file that can be read ({reason})') from error


def _is_onnx(path: Path) -> bool:
    return path.suffix == SUFFIXES['onnx']


def _onnx_reader(runtime: str) -> Reader:
    if runtime not in _RUNTIMES:
        raise UserError(f'{RUNTIME_VARIABLE}: {runtime!r} is none of {", ".join(_RUNTIMES)}')
    return _RUNTIMES[runtime]


def _open_onnx(path: Path) -> tuple[str, Sequence[str], Run]:
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=['CPUExecutionProvider']
    )
    text = session.get_modelmeta().custom_metadata_map.get(METADATA, '')

    def run(images: Tensor) -> list[Tensor]:
        outputs = session.run(None, {'images': images.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return text, [output.name for output in session.get_outputs()], run


def _open_openvino(path: Path) -> tuple[str, Sequence[str], Run]:
    if importlib.util.find_spec('openvino') is None:
        raise UserError("OpenVINO is not installed: pip install 'swinv2_mm[openvino]'")
    import onnx
    import openvino

    settings = {
        # Processors with bfloat16 would compute in it.
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': torch.get_num_threads(),
    }
    model = openvino.Core().compile_model(str(path), 'CPU', settings)
    properties = onnx.load(path, load_external_data=False).metadata_props
    text = next((entry.value for entry in properties if entry.key == METADATA), '')

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in model(images.numpy()).to_tuple()]

    return text, (), run


_RUNTIMES: dict[str, Reader] = {'onnxruntime': _open_onnx, 'openvino': _open_openvino}


def _open_torch(path: Path) -> tuple[str, Sequence[str], Run]:
    # Registers NMS and RoIAlign, which the file may call.
    import torchvision  # noqa: F401

    module = torch.export.load(path).module()

    def run(images: Tensor) -> list[Tensor]:
        try:
            with torch.inference_mode():
                return list(module(images))
        except AssertionError as error:
            # A guard of the graph, such as for maps of a single row.
            height, width = images.shape[2:]
            raise UserError(
                f'{path} does not take images of {height} x {width} px ({error}): export with '
                '--shape, or take larger ones'
            ) from error

    return _metadata_of_archive(path), (), run


def _metadata_of_archive(path: Path) -> str:
    """Return the text that ``torch.export.save`` put beside the graph; empty if there is none."""
    # The second is where torch 2.6 puts it.
    places = (f'extra/{METADATA}', f'extra_files/{METADATA}')
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(places)]
        return archive.read(names[0]).decode() if names else ''
