"""Name blocks of a backbone: ``2.1`` is the second block of the third stage, as in its keys."""

from __future__ import annotations

from collections.abc import Sequence

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.blocks import SwinBlock
from swinv2_mm.errors import UserError

Layer = tuple[int, int]


def layers_of(backbone: SwinTransformerV2) -> list[Layer]:
    """List (stage, block) of all blocks, in order."""
    return [(stage, i) for stage, depth in enumerate(backbone.arch.depths) for i in range(depth)]


def parse_layers(texts: Sequence[str], *, backbone: SwinTransformerV2) -> list[Layer]:
    """Read layers such as ``2.1``; a stage alone means its last block.

    Raises:
        UserError: If there is no such block.
    """
    depths = backbone.arch.depths
    found = []
    for text in texts:
        stage, _, block = text.partition('.')
        numbers = [stage, block or '0']
        if not all(number.isascii() and number.isdecimal() for number in numbers):
            raise UserError(f"--layers: '{text}' is no layer; write STAGE.BLOCK, such as 2.1")
        if int(stage) >= len(depths) or int(block or 0) >= depths[int(stage)]:
            raise UserError(
                f'--layers: the model has no block {text}; its stages 0 to {len(depths) - 1} have '
                f'{", ".join(map(str, depths))} blocks'
            )
        found.append((int(stage), int(block) if block else depths[int(stage)] - 1))
    return found


def last_blocks(backbone: SwinTransformerV2) -> list[Layer]:
    """List the last two blocks, regular and shifted, of each stage that runs."""
    running = backbone.arch.depths[: max(backbone.out_indices) + 1]
    return [(s, i) for s, depth in enumerate(running) for i in range(max(depth - 2, 0), depth)]


def block_at(backbone: SwinTransformerV2, layer: Layer) -> SwinBlock:
    """Return the block of a layer."""
    return backbone.layers[layer[0]].blocks[layer[1]]


def name_of(layer: Layer) -> str:
    """Write a layer as it is read."""
    return f'{layer[0]}.{layer[1]}'
