"""The registered backbone, as the three libraries find and initialise it."""

import subprocess
import sys

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope

import swinv2_mm.models  # noqa: F401
from swinv2_mm.checkpoint import CheckpointError, save_pretrained
from swinv2_mm.core import SwinTransformerV2

NARROW = {'embed_dim': 16, 'depths': (1, 1, 2, 1), 'num_heads': (1, 2, 4, 8)}
CFG = {'type': 'SwinV2', 'arch': NARROW, 'window_size': 4}


class Detector(BaseModule):
    def __init__(self, **backbone):
        super().__init__()
        self.backbone = MODELS.build({**CFG, **backbone})


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_library_finds_it(library):
    registry = pytest.importorskip(f'{library}.registry').MODELS
    with DefaultScope.overwrite_default_scope(library):
        backbone = registry.build(CFG)
    assert isinstance(backbone, SwinTransformerV2)
    assert [m.shape[1:] for m in backbone(torch.zeros(1, 3, 64, 48))] == [
        (16, 16, 12), (32, 8, 6), (64, 4, 3), (128, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_one_library_is_enough(library):
    blocked = {'mmdet', 'mmseg', 'mmpretrain'} - {library}
    code = (
        f'import sys\nfor name in {sorted(blocked)}: sys.modules[name] = None\n'
        f'import swinv2_mm.models, {library}.models\n'
        f'from {library}.registry import MODELS\n'
        f'print(type(MODELS.build({CFG!r})).__name__)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ['SwinV2'], done.stderr[-2000:]


def test_pretrained_weights_through_a_parent(tmp_path):
    source = MODELS.build({**CFG, 'window_size': 8})
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_pretrained(source, tmp_path / 'weights.pth', layout='own')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'weights.pth')}
    model = Detector(init_cfg=init_cfg)
    model.init_weights()
    # The window of the config, the reference of the weights.
    assert model.backbone.window_sizes == ((4, 4),) * 4
    assert model.backbone.get_pretrained_window_sizes() == ((8, 8),) * 4
    image = torch.randn(1, 3, 64, 64)
    source.set_window_size(4)
    for one, other in zip(source.eval()(image), model.eval().backbone(image), strict=True):
        assert torch.equal(one, other)


def test_without_weights_the_official_initialisation(tmp_path):
    model = Detector()
    with torch.no_grad():
        model.backbone.layers[0].blocks[0].norm1.weight.fill_(3.0)
    model.init_weights()
    assert not model.backbone.layers[0].blocks[0].norm1.weight.any()


def test_weights_that_do_not_fit(tmp_path):
    wider = MODELS.build({**CFG, 'arch': {**NARROW, 'embed_dim': 32}})
    save_pretrained(wider, tmp_path / 'wider.pth', layout='own')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'wider.pth')}
    with pytest.raises(CheckpointError, match=r'wider\.pth'):
        Detector(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize(
    'init_cfg', [{'type': 'Xavier'}, {'type': 'Pretrained'}, {'type': 'Pretrained', 'path': 'x'}]
)
def test_other_init_cfg_is_refused(init_cfg):
    with pytest.raises(ValueError, match='init_cfg'):
        MODELS.build({**CFG, 'init_cfg': init_cfg})


def test_unknown_argument_is_refused():
    with pytest.raises(TypeError, match='windowsize'):
        MODELS.build({**CFG, 'windowsize': 8})
