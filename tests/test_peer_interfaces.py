"""What others offer for models takes ours: inferencers of the libraries, torch.hub."""

import os

import pytest
import torch
from conftest import ROOT
from forked import fork_script, status_of
from mmengine.config import Config
from mmengine.runner import Runner

import swinv2_mm.models  # noqa: F401
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.shipped import recipe

RECIPES = {
    'mmdet': 'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
    'mmseg': 'segmentation/upernet_swinv2-nano-w8_digits.py',
    'mmpretrain': 'classification/swinv2-nano-w8_digits.py',
}
HEAD = """
import swinv2_mm.models
from swinv2_mm.config.peer_inferencers import config_for_inferencers
cfg = config_for_inferencers(config)
"""
CODE = {
    'mmdet': """
from mmdet.apis import DetInferencer
found = DetInferencer(cfg, weights, device='cpu', show_progress=False)(image)
print(sorted(found['predictions'][0]))
""",
    'mmseg': """
from mmseg.apis import MMSegInferencer
found = MMSegInferencer(cfg, weights, device='cpu')(image, show=False)
print(found['predictions'].shape)
""",
    'mmpretrain': """
from mmpretrain import ImageClassificationInferencer, get_model
model = get_model(cfg, pretrained=weights, device='cpu')
found = ImageClassificationInferencer(model, device='cpu')(image)
# Behind its progress bar.
print('', found[0]['pred_class'], sep=chr(10))
""",
}
EXPECTED = {
    'mmdet': "['bboxes', 'labels', 'masks', 'scores']",
    'mmseg': '(128, 128)',
    'mmpretrain': None,
}


@pytest.mark.parametrize('library', RECIPES)
def test_inferencer_takes_config_and_weights(library, use_data, tmp_path):
    config = recipe(RECIPES[library])
    cfg = Config.fromfile(config)
    cfg.work_dir = str(tmp_path / 'run')
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    meta = dict(dataset_meta=runner.train_loop.dataloader.dataset.metainfo, cfg=cfg.pretty_text)
    torch.save({'state_dict': runner.model.state_dict(), 'meta': meta}, tmp_path / 'weights.pth')
    image = next((use_data / 'digits' / 'images' / 'val').iterdir())
    head = '\n'.join(
        f'{name} = {str(value)!r}'
        for name, value in (
            ('config', config),
            ('weights', tmp_path / 'weights.pth'),
            ('image', image),
        )
    )
    script, output = tmp_path / 'script.py', tmp_path / 'output.txt'
    script.write_text(head + HEAD + CODE[library])
    pid = fork_script(
        script, output=output, environment={'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD': '1'},
        prepare=lambda: os.chdir(tmp_path),
    )  # fmt: skip
    assert status_of(pid) == 0, output.read_text()
    last = output.read_text().strip().splitlines()[-1]
    assert (
        last == EXPECTED[library]
        or last in Config.fromfile(recipe('_base_/datasets/digits-instance')).metainfo.classes
    )


def test_torch_hub(tmp_path):
    from swinv2_mm.checkpoint import save_pretrained

    arguments = dict(window_size=8, out_indices=(0, 3))
    model = SwinTransformerV2('tiny', **arguments).eval()
    save_pretrained(model, tmp_path / 'tiny.pth', layout='official')
    loaded = torch.hub.load(
        str(ROOT), 'swinv2_tiny', source='local', weights=str(tmp_path / 'tiny.pth'), **arguments
    ).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(model(image), loaded(image), strict=True):
            torch.testing.assert_close(ours, theirs)
