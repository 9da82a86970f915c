"""Predict for an image by a library's inferencer: ``predict.py LIBRARY CONFIG WEIGHTS IMAGE``."""

import sys

import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.peer_inferencers import config_for_inferencers


def main(library: str, config: str, weights: str, image: str) -> None:
    """Print what is predicted."""
    cfg = config_for_inferencers(config)
    if library == 'mmdet':
        from mmdet.apis import DetInferencer

        found = DetInferencer(cfg, weights, device='cpu', show_progress=False)(image)
        print('DetInferencer:', len(found['predictions'][0]['scores']), 'instances')
    elif library == 'mmseg':
        from mmseg.apis import MMSegInferencer

        found = MMSegInferencer(cfg, weights, device='cpu')(image, show=False)
        print('MMSegInferencer:', found['predictions'].shape)
    else:
        from mmpretrain import ImageClassificationInferencer, get_model

        model = get_model(cfg, pretrained=weights, device='cpu')
        found = ImageClassificationInferencer(model, device='cpu')(image)
        print('\nget_model:', found[0]['pred_class'])


if __name__ == '__main__':
    main(*sys.argv[1:])
