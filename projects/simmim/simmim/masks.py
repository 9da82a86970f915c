"""Draw random block masks of an image."""

from __future__ import annotations

import numpy as np
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets.transforms import SimMIMMaskGenerator


@TRANSFORMS.register_module()
class RandomBlockMask(SimMIMMaskGenerator):
    """mmpretrain's mask of random blocks, which is the official one, for validation too.

    Added key: ``mask``, (input_size / model_patch_size) squared, 1 where hidden.

    Args:
        input_size: Side of the image in pixels.
        mask_patch_size: Side of a block in pixels.
        model_patch_size: Side of a token in pixels.
        mask_ratio: Share of the blocks that is hidden, rounded up to whole blocks.
        is_fixed: Whether an image has the same mask every time, whichever process loads it.

    Raises:
        ValueError: If blocks do not tile the image, tokens not the blocks, or the ratio is not
            in (0, 1].
    """

    def __init__(
        self,
        *,
        input_size: int = 192,
        mask_patch_size: int = 32,
        model_patch_size: int = 4,
        mask_ratio: float = 0.6,
        is_fixed: bool = False,
    ) -> None:
        for whole, part, names in (
            (input_size, mask_patch_size, 'input_size a multiple of mask_patch_size'),
            (mask_patch_size, model_patch_size, 'mask_patch_size a multiple of model_patch_size'),
        ):
            if part < 1 or whole < part or whole % part:
                raise ValueError(f'RandomBlockMask needs {names}, got {whole} and {part}')
        if not 0 < mask_ratio <= 1:
            raise ValueError(f'mask_ratio of RandomBlockMask must be in (0, 1], got {mask_ratio}')
        super().__init__(input_size, mask_patch_size, model_patch_size, mask_ratio)
        self.is_fixed = is_fixed

    def transform(self, results: dict) -> dict:
        """Add the mask to ``results``."""
        if not self.is_fixed:
            return super().transform(results)
        # The generator draws from NumPy's global state, which training goes on with.
        state = np.random.get_state()
        np.random.seed(int(results['sample_idx']))
        try:
            return super().transform(results)
        finally:
            np.random.set_state(state)
