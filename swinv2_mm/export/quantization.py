"""8-bit dynamic quantization of ONNX classifiers, exact on every x86 processor.

ONNX Runtime multiplies uint8 activations by int8 weights. With AVX2 or AVX-512 but without VNNI it
does so by ``vpmaddubsw``, which adds two products in a saturating int16: with weights up to 127 the
sum 255 * (127 + 127) is cut off, and the model returns noise there while it is right on processors
with VNNI. Weights of 7 bits (``reduce_range``) cannot overflow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinv2_mm.errors import UserError

_LARGEST_ACTIVATION, _LARGEST_INT16 = 255, 32767
# Of two products that share an int16, whichever two weights a kernel pairs.
LARGEST_WEIGHT = _LARGEST_INT16 // (2 * _LARGEST_ACTIVATION)
# Of logits. Rounding SwinV2-T to 7 bits makes 0.1 (8 bits: 0.05); sums that saturate, above 1.
TOLERANCE = 0.4
# Of the predicted class; of few images some are ties.
LEAST_AGREEMENT = 0.5


def quantize(source: Path, target: Path, *, reduce_range: bool = True) -> None:
    """Write a copy of an ONNX file whose matrices and convolutions have integer weights.

    Args:
        source: The file in float32.
        target: The file to write.
        reduce_range: Whether weights have 7 bits instead of 8; without, ``check_weights`` refuses
            the file.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # The intermediate shapes noted by torch predate the transposition of weights, and stop the
    # shape inference that comes first.
    del model.graph.value_info[:]
    quantize_dynamic(
        model, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduce_range
    )


def integer_weights(path: Path) -> dict[str, NDArray[np.int8]]:
    """Return the int8 weights of every integer matrix product and convolution of an ONNX file."""
    import onnx

    graph = onnx.load(path).graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    names = [
        node.input[1] for node in graph.node if node.op_type in {'MatMulInteger', 'ConvInteger'}
    ]
    weights = {name: onnx.numpy_helper.to_array(initializers[name]) for name in names}
    return {name: weight for name, weight in weights.items() if weight.dtype == np.int8}


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


def check_logits(exact: Tensor, rough: Tensor) -> str:
    """Check the logits of an 8-bit file against those of its original.

    Args:
        exact: Of the float32 file; (images, classes).
        rough: Of the 8-bit file, for the same images.

    Returns:
        What was found, as a sentence.

    Raises:
        UserError: If they differ by more than rounding to integers explains.
    """
    scale = exact.abs().amax(dim=1).clamp(min=torch.finfo(exact.dtype).tiny)
    worst = ((exact - rough).abs().amax(dim=1) / scale).max().item()
    agreement = (exact.argmax(dim=1) == rough.argmax(dim=1)).float().mean().item()
    found = (
        f'8-bit logits: largest relative difference {worst:.2g}, same class for '
        f'{100 * agreement:.0f} % of {len(exact)} images'
    )
    if not (worst <= TOLERANCE and agreement >= LEAST_AGREEMENT):
        raise UserError(
            f'{found}; {TOLERANCE:g} and {100 * LEAST_AGREEMENT:.0f} % are the limits: nothing was '
            'written'
        )
    return found
