"""Find the layers of an ONNX graph that bear fewer bits, by its structure."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence

import onnx

# Layers with weights; attention multiplies two activations.
WEIGHTED = frozenset({'MatMul', 'Gemm', 'Conv'})
# Operations that decide: rounding before them moves boxes and changes which are kept.
_DECISIONS = frozenset({'TopK', 'NonZero', 'NonMaxSuppression', 'ArgMax', 'Exp'})
# torch notes in the metadata of a node in which modules it was called.
_SCOPES = 'pkg.torch.onnx.name_scopes'


def weighted_layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the products and convolutions whose second factor is a constant."""
    constants = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type in WEIGHTED and node.input[1] in constants]


def deciding_layers(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the layers whose results are decided on, or are outputs of the file.

    Logits, box deltas, masks and embeddings of queries: no other layer with weights comes between
    them and a decision. The position bias needs no rule: it is a constant, as baked by
    ``bake_position_bias``. Norms and the products of attention have no weights of this kind.
    """
    layers = weighted_layers(graph)
    names = {node.name for node in layers}
    readers = defaultdict(list)
    for node in graph.node:
        for value in node.input:
            readers[value].append(node)
    outputs = {output.name for output in graph.output}
    return {layer.name for layer in layers if _decides(layer, readers, outputs, names)}


def _decides(
    layer: onnx.NodeProto,
    readers: dict[str, list[onnx.NodeProto]],
    outputs: set[str],
    layers: set[str],
) -> bool:
    """Follow what a layer computes up to the next layers."""
    waiting, seen = list(layer.output), set(layer.output)
    while waiting:
        value = waiting.pop()
        if value in outputs:
            return True
        for node in readers[value]:
            if node.op_type in _DECISIONS:
                return True
            if node.name not in layers:
                waiting += [name for name in node.output if name not in seen]
                seen.update(node.output)
    return False


def nodes_outside_modules(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes that compute coordinates: outside modules, or of samplers."""
    scopes = {node.name: _modules(node) for node in graph.node}
    samplers = [node for node in graph.node if node.op_type in ('RoiAlign', 'GridSample')]
    sampling = {scopes[node.name][-1:] for node in samplers}
    return {name for name, modules in scopes.items() if not modules or modules[-1:] in sampling}


def _modules(node: onnx.NodeProto) -> Sequence[str]:
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), '[]')
    # The whole model comes first, the operation last.
    return tuple(ast.literal_eval(text)[1:-1])
