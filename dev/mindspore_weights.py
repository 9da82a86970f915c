"""Make weights files of MindCV with the logits that it computes from them, for the tests.

Needs an environment of its own (2.8 GB, CPU), and imports nothing of this project:
``pip install mindspore==2.10.0 mindcv==0.3.0 'numpy<2'``. Without ``--whole``, it writes the shrunk
files that the tests hold; with it, whole models, for ``SWINV2_MINDCV=FOLDER pytest -m slow``.
Weights are random, norms and biases too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import mindcv
import mindspore
import numpy as np
from mindcv.models.pvtv2 import PyramidVisionTransformerV2
from mindcv.models.swintransformerv2 import SwinTransformerV2
from mindspore import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
_NUM_CLASSES = 5


def _small_swinv2() -> nn.Cell:
    return SwinTransformerV2(
        image_size=32,
        num_classes=_NUM_CLASSES,
        embed_dim=4,
        depths=[2, 1],
        num_heads=[1, 2],
        window_size=4,
        pretrained_window_sizes=[0, 0],
    )


def _small_pvtv2() -> nn.Cell:
    # As many heads as b0 to b5 have.
    return PyramidVisionTransformerV2(
        img_size=64,
        num_classes=_NUM_CLASSES,
        embed_dims=[2, 4, 10, 16],
        num_heads=[1, 2, 5, 8],
        mlp_ratios=[2, 2, 1, 1],
        qkv_bias=True,
        norm_layer=_norm,
        depths=[2, 1, 1, 1],
        sr_ratios=[8, 4, 2, 1],
    )


def _norm(shape: list[int]) -> nn.Cell:
    return nn.LayerNorm(shape, epsilon=1e-6)


# Name of the files: how to build the model, and the side of its image.
_SMALL: dict[str, tuple[Callable[[], nn.Cell], int]] = {
    'mindcv_swinv2': (_small_swinv2, 32),
    'mindcv_pvtv2': (_small_pvtv2, 64),
}
_WHOLE: dict[str, tuple[Callable[[], nn.Cell], int]] = {
    'swinv2_tiny_window8': (lambda: mindcv.create_model('swinv2_tiny_window8'), 256),
    'pvt_v2_b0': (lambda: mindcv.create_model('pvt_v2_b0'), 224),
    'pvt_v2_b2': (lambda: mindcv.create_model('pvt_v2_b2'), 224),
}


def image(side_px: int) -> np.ndarray:
    """Return the image that the logits are of, as the tests make it: (1, 3, side, side)."""
    values = np.arange(3 * side_px * side_px, dtype=np.float64)
    return np.sin(values * 0.7).astype(np.float32).reshape(1, 3, side_px, side_px)


def write(name: str, model: nn.Cell, *, side_px: int, folder: Path) -> None:
    """Draw a model's weights, save them and the logits of ``image``."""
    generator = np.random.default_rng(0)
    for parameter in model.trainable_params():
        noise = 0.05 * generator.standard_normal(parameter.shape)
        value = parameter.asnumpy() + noise.astype(np.float32)
        parameter.set_data(Tensor(value.astype(np.float32)))
    model.set_train(False)
    logits = model(Tensor(image(side_px))).asnumpy()[0]
    mindspore.save_checkpoint(model, str(folder / f'{name}.ckpt'))
    found = {'image_size': side_px, 'logits': [float(value) for value in logits]}
    (folder / f'{name}.json').write_text(json.dumps(found) + '\n')


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--whole', type=Path, metavar='FOLDER', help='write whole models there')
    args = parser.parse_args()
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, device_target='CPU')
    folder = args.whole or ROOT / 'tests/golden'
    folder.mkdir(parents=True, exist_ok=True)
    for name, (build, side_px) in (_WHOLE if args.whole else _SMALL).items():
        mindspore.set_seed(0)
        write(name, build(), side_px=side_px, folder=folder)


if __name__ == '__main__':
    main()
