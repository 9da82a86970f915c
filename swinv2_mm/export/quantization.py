"""8-bit static quantization and fp16 of ONNX files, right on every x86 processor.

ONNX Runtime multiplies uint8 activations by int8 weights. With AVX2 or AVX-512 but without VNNI it
does so by ``vpmaddubsw``, which adds two products in a saturating int16: with weights up to 127 the
sum 255 * (127 + 127) is cut off, and the model returns noise there while it is right on processors
with VNNI. Weights of 7 bits (``reduce_range``) cannot overflow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swinv2_mm.errors import UserError

_LARGEST_ACTIVATION, _LARGEST_INT16 = 255, 32767
# So that the sum of any two products fits into an int16, whichever weights a kernel pairs.
LARGEST_WEIGHT = _LARGEST_INT16 // (2 * _LARGEST_ACTIVATION)
# Error of rounding an activation to 8 bits, relative to its standard deviation. Outliers
# that stretch the range of a layer make it larger.
_LARGEST_NOISE = 0.1
# Images whose activations are looked at, all layers at once in memory.
_NUM_WATCHED = 4


def quantize(
    source: Path, target: Path, *, images: Sequence[Tensor], reduce_range: bool = True
) -> list[str]:
    """Write a copy of an ONNX file whose layers have integer weights and activations.

    Layers whose results are decided on (``layers.deciding_layers``) and those whose input has
    outliers stay in float32.

    Args:
        source: The file in float32.
        target: The file to write.
        images: What the file takes, each (1, 3, H_px, W_px): the ranges of activations are theirs.
        reduce_range: Whether weights have 7 bits instead of 8; without, ``check_weights`` refuses
            the file.

    Returns:
        The names of the layers that stay in float32.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    from .layers import WEIGHTED, deciding_layers, weighted_layers

    model = onnx.load(source)
    # The intermediate shapes noted by torch predate the transposition of weights, and stop the
    # shape inference that comes first.
    del model.graph.value_info[:]
    layers = weighted_layers(model.graph)
    in_float = deciding_layers(model.graph)
    inputs = {layer.input[0] for layer in layers}
    noise = _noise_of_inputs(model, inputs, images=images[:_NUM_WATCHED])
    in_float |= {layer.name for layer in layers if noise[layer.input[0]] > _LARGEST_NOISE}
    chosen = [layer.name for layer in layers if layer.name not in in_float]
    logging.disable(logging.WARNING)  # advice on pre-processing
    try:
        quantize_static(
            model,
            target,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # The ranges of other operations are not needed, and some are infinite.
            op_types_to_quantize=sorted(WEIGHTED),
            nodes_to_quantize=chosen,
        )
    finally:
        logging.disable(logging.NOTSET)
    return sorted(in_float)


class _Images:
    """Images for ONNX Runtime's calibration, one after another."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self._left: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next image, ``None`` after the last."""
        image = next(self._left, None)
        return None if image is None else {'images': image.numpy()}


def _noise_of_inputs(
    model: Any, names: Iterable[str], *, images: Sequence[Tensor]
) -> dict[str, float]:
    """Measure the relative error of rounding activations to 8 bits, the largest of all images."""
    import onnx
    import onnxruntime

    names = sorted(names)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in [*model.graph.output, *model.graph.input]}
    watched.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in known
    )
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), providers=['CPUExecutionProvider']
    )
    noise = dict.fromkeys(names, 0.0)
    wanted = [name for name in names if name != 'images']
    for image in images:
        for name, x in zip(wanted, session.run(wanted, {'images': image.numpy()}), strict=True):
            if not x.size:
                continue
            # Standard error of rounding to steps of one 255th of the range.
            error = (x.max() - x.min()) / _LARGEST_ACTIVATION / np.sqrt(12)
            noise[name] = max(noise[name], float(error / max(x.std(), 1e-12)))
    return noise


def halve(source: Path, target: Path) -> None:
    """Write a copy of an ONNX file that computes in float16.

    Norms, softmax, resampling and everything that computes coordinates stay in float32, as do the
    input and the outputs.

    Args:
        source: The file in float32.
        target: The file to write.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    from .layers import nodes_outside_modules

    model = onnx.load(source)
    del model.graph.value_info[:]
    in_float = ['LayerNormalization', 'Softmax', 'ReduceL2', 'GridSample', 'Resize', 'Where']
    halved = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *in_float],
        node_block_list=sorted(nodes_outside_modules(model.graph)),
    )
    _undo_double_casts(halved.graph)
    onnx.save(halved, target)


def _undo_double_casts(graph: Any) -> None:
    """Pass on values that the conversion rounds to float16 and back between two float32 nodes."""
    import onnx

    casts = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == 'Cast' and '_cast' in node.name
    }
    for node in casts.values():
        before = casts.get(node.input[0])
        is_back = node.attribute[0].i == onnx.TensorProto.FLOAT
        if before is not None and is_back:
            node.op_type, node.input[0] = 'Identity', before.input[0]
            del node.attribute[:]


def integer_weights(path: Path) -> dict[str, NDArray[np.int8]]:
    """Return the int8 weights of an ONNX file by their names."""
    import onnx

    graph = onnx.load(path).graph
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    }


def check_weights(path: Path) -> None:
    """Check that no sum of two products of an 8-bit file can overflow an int16.

    Raises:
        UserError: If one can, so that the file is wrong on processors without VNNI.
    """
    for name, weight in integer_weights(path).items():
        largest = int(np.abs(weight.astype(np.int16)).max(initial=0))
        if largest > LARGEST_WEIGHT:
            raise UserError(
                f'{path.name}: the 8-bit weights {name} reach {largest}, more than '
                f'{LARGEST_WEIGHT}: their sums saturate on processors without VNNI, quantize with '
                'reduce_range'
            )
