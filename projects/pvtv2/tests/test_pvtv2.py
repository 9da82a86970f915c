"""PVTv2 is what was published, reads all known weights, and trains by the same recipes."""

import importlib.util
import json
import math
import re

import pytest
import timm
import torch
from conftest import ROOT, SHARED_DATA
from mmengine.config import Config
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from shrinking import as_text, shrink
from test_mindspore_files import GOLDEN, TOLERANCE, WHOLE, expected

from projects.pvtv2.pvtv2 import ARCHITECTURES, PVTv2
from projects.pvtv2.pvtv2.weights import load_pvtv2
from swinv2_mm.checkpoint.errors import CheckpointError
from swinv2_mm.checkpoint.mindspore_file import read_mindspore

CONFIGS = ROOT / 'projects' / 'pvtv2' / 'configs'
LEAVES = sorted(p.relative_to(CONFIGS) for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts)
QUICK = (
    'pvtv2-b0_16xb64_in1k-256',
    'pvtv2-b0_8xb128_in1k-224',
    'retinanet_pvtv2-b0_fpn_1x_coco',
    'semantic-fpn_pvtv2-b0_8xb4-40k_ade20k-512',
)


def classifier(arch):
    cfg = Config.fromfile(CONFIGS / 'classification' / f'pvtv2-{arch}_16xb64_in1k-256.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize(
    'arch, millions', [('b0', 3.67), ('b1', 14.01), ('b2', 25.36), ('b3', 45.24), ('b4', 62.56)]
)
def test_parameters(arch, millions, monkeypatch):
    # Rates of stochastic depth are read off a tensor, which the meta device has no values for.
    linspace = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *a: linspace(*a, device='cpu'))
    model = classifier(arch)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def peer(arch):
    torch.manual_seed(0)
    model = timm.create_model(f'pvt_v2_{arch.replace("-", "_")}', num_classes=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases too: what is left out or mixed up must show.
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def official_names(state):
    """timm's names -> those of the authors' code, written out from that code's modules."""
    renamed = {}
    for name, value in state.items():
        if name.startswith('patch_embed.'):
            name = name.replace('patch_embed.', 'patch_embed1.')
        if match := re.match(r'stages\.(\d)\.(\w+)\.(.*)', name):
            stage, part, rest = int(match[1]) + 1, match[2], match[3]
            kinds = {'blocks': 'block', 'norm': 'norm', 'downsample': 'patch_embed'}
            name = f'{kinds[part]}{stage}.{rest}'
        renamed[name.replace('mlp.dwconv.', 'mlp.dwconv.dwconv.')] = value
    return {**renamed, 'head.weight': torch.zeros(1000, 4), 'head.bias': torch.zeros(1000)}


@pytest.mark.parametrize(
    'arch', [pytest.param(a, marks=() if a in ('b0', 'b2-li') else pytest.mark.slow)
             for a in ARCHITECTURES]
)  # fmt: skip
def test_outputs_are_those_of_timm(arch, tmp_path):
    theirs, images = peer(arch), torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        expected = theirs.forward_intermediates(images, intermediates_only=True)
    torch.save(official_names(theirs.state_dict()), tmp_path / 'official.pth')
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    worst = 0.0
    for name in ('official', 'timm'):
        cfg = dict(type='Pretrained', checkpoint=str(tmp_path / f'{name}.pth'))
        ours = PVTv2(arch, init_cfg=cfg).eval()
        ours.init_weights()
        with torch.no_grad():
            for a, b in zip(ours(images), expected, strict=True):
                worst = max(worst, ((a - b).abs().max() / b.abs().max()).item())
        # Own weights, as a checkpoint of a whole model holds them.
        again = PVTv2(arch)
        load_pvtv2(again, {f'backbone.{k}': v for k, v in ours.state_dict().items()})
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in ours.state_dict().items())
    print(f'{arch}: largest relative deviation {worst:.1e}')
    assert worst < 1e-5


def mindcv_deviation(backbone, path):
    """By how much logits differ from those that MindCV computed, relative to the largest."""
    backbone.eval()
    image, logits = expected(path)
    head = read_mindspore(path)
    with torch.no_grad():
        pooled = backbone(image)[-1].mean((2, 3))
        found = torch.nn.functional.linear(pooled, head['head.weight'], head['head.bias'])
    return ((found - logits).abs().max() / logits.abs().max()).item()


def test_logits_are_those_of_mindcv(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, 'small', (2, (2, 1, 1, 1), (2, 2, 1, 1), False))
    path = GOLDEN / 'mindcv_pvtv2.ckpt'
    assert path.stat().st_size < 50_000
    ours = PVTv2('small')
    load_pvtv2(ours, path)
    assert ours.numerics == 'mindspore' and mindcv_deviation(ours, path) < TOLERANCE
    again = PVTv2('small')
    load_pvtv2(again, {f'backbone.{k}': v for k, v in ours.state_dict().items()})
    assert mindcv_deviation(again, path) < TOLERANCE
    # What brings no numerics goes with the official ones.
    state = {k: v for k, v in ours.state_dict().items() if k != 'numerics'}
    load_pvtv2(again, state)
    assert again.numerics == 'official' and mindcv_deviation(again, path) > 10 * TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE.is_dir(), reason='needs SWINV2_MINDCV=FOLDER')
@pytest.mark.parametrize('arch', ['b0', 'b2'])
def test_logits_of_a_whole_model_are_those_of_mindcv(arch):
    ours, path = PVTv2(arch), WHOLE / f'pvt_v2_{arch}.ckpt'
    load_pvtv2(ours, path)
    worst = mindcv_deviation(ours, path)
    print(f'PVTv2 {arch}: logits differ by {worst:.1e}')
    assert worst < TOLERANCE


def test_weights_that_do_not_fit_are_refused():
    state = peer('b0').state_dict()
    lacking = {k: v for k, v in state.items() if 'stages.3.blocks.1' not in k}
    for wrong in (
        state,
        {**state, 'block9.0.norm1.weight': torch.ones(1)},
        lacking,
        {'x': torch.ones(1)},
    ):
        arch = 'b2' if wrong is state else 'b0'
        with pytest.raises(CheckpointError, match='does not fit this PVTv2'):
            load_pvtv2(PVTv2(arch), wrong)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='b6'), "unknown arch 'b6'"),
        (dict(drop_path_rate=1.0), 'drop_path_rate must be'),
        (dict(init_cfg=dict(type='Normal')), 'init_cfg of PVTv2 must be'),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PVTv2(**kwargs)


@pytest.mark.parametrize('arch', ['b0', 'b2-li'])
def test_deeper_layers_learn_faster(arch):
    model = torch.nn.ModuleDict({'backbone': PVTv2(arch), 'head': torch.nn.Linear(4, 4)})
    cfg = dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05))
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get('SwinV2OptimWrapperConstructor')
    groups = constructor(cfg, dict(layer_decay_rate=0.5)).param_groups(model)
    rates = {id(p): group['lr'] for group in groups for p in group['params']}
    found = {name: rates[id(p)] for name, p in model.named_parameters()}
    total = sum(ARCHITECTURES[arch][1])
    assert found['head.weight'] == found['backbone.layers.3.2.weight'] == 1
    assert found['backbone.layers.0.0.projection.weight'] == 0.5 ** (total + 1)
    assert found['backbone.layers.0.1.0.norm1.weight'] == 0.5**total
    assert found['backbone.layers.3.1.1.norm1.weight'] == 0.5 ** (1 if arch == 'b0' else 2)


def real_data(tree, root, folder):
    """Have a recipe read the photographs of another data set, as of its first classes."""
    scope, datasets = tree['default_scope'], {}
    for split, long in (('train', 'training'), ('val', 'validation')):
        if scope == 'mmdet':
            datasets[split] = dict(
                type='CocoDataset', data_root=f'{root}/coco_mini',
                ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'),
            )  # fmt: skip
        elif scope == 'mmseg':
            prefix = dict(img_path=f'images/{long}', seg_map_path=f'annotations/{long}')
            datasets[split] = dict(
                type='ADE20KDataset', data_root=f'{root}/facade', data_prefix=prefix,
                img_suffix='.jpg', reduce_zero_label=False,
            )  # fmt: skip
        else:
            datasets[split] = dict(
                type='CustomDataset', data_root=f'{root}/flowers', data_prefix=split
            )
    for loader, split in (('train_dataloader', 'train'), ('test_dataloader', 'val')):
        old = tree[loader]['dataset']
        tree[loader]['dataset'] = {**datasets[split], 'pipeline': old['pipeline'], 'indices': 2}
    if scope == 'mmdet':
        # Two images in the data set and in the file of the metric.
        content = json.loads((root / 'coco_mini/annotations/val.json').read_text())
        content['images'] = content['images'][:2]
        kept = {image['id'] for image in content['images']}
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] in kept]
        path = folder / 'val.json'
        path.write_text(json.dumps(content))
        tree['test_dataloader']['dataset'] |= {'ann_file': str(path), 'indices': None}
        tree['test_evaluator']['ann_file'] = str(path)
    if scope == 'mmpretrain':
        tree['model']['head']['topk'] = (1,)
        tree['test_evaluator']['topk'] = (1,)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason='needs the photographs of ../shared')
@pytest.mark.parametrize(
    'leaf',
    [pytest.param(leaf, marks=() if leaf.stem in QUICK else pytest.mark.slow) for leaf in LEAVES],
    ids=lambda leaf: leaf.stem,
)
def test_recipe_trains_and_tests_on_photographs(leaf, tool, tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(SHARED_DATA))
    cfg = Config.fromfile(CONFIGS / leaf)
    lines = (CONFIGS / leaf).read_text().splitlines()
    assert len(lines) <= 25 and f'projects/pvtv2/configs/{leaf}' in lines[1]
    arch = re.search(r'pvtv2-(b\d(-li)?)_', leaf.stem)[1]
    assert cfg.model.backbone.arch == arch
    if weights := cfg.model.backbone.get('init_cfg'):
        assert weights.checkpoint.endswith(f'/pvt_v2_{arch.replace("-", "_")}.pth')
        cfg.model.backbone.init_cfg = None
    tree = shrink(cfg, with_model=False)
    real_data(tree, SHARED_DATA, tmp_path)
    (tmp_path / 'leaf.py').write_text(as_text(tree))
    status, errors = tool('train', tmp_path / 'leaf.py', '--work-dir', tmp_path)
    assert status == 0, errors
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in log.read_text().splitlines()]
    assert len(losses) == 1 and math.isfinite(losses[0]) and losses[0] > 0
    checkpoint = (tmp_path / 'last_checkpoint').read_text().strip()
    status, errors = tool('test', tmp_path / 'leaf.py', checkpoint, '--work-dir', tmp_path / 'test')
    assert status == 0, errors


def test_models_are_compared_side_by_side(tmp_path, capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location('compare', CONFIGS.parent / 'tools/compare.py')
    compare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compare)
    configs = [
        'projects/pvtv2/configs/classification/pvtv2-b0_16xb64_in1k-256.py',
        'configs/classification/swinv2-nano-w8_digits.py',
    ]
    out = tmp_path / 'table.md'
    arguments = ['--shape', '64', '64', '--rounds', '1', '--out', str(out)]
    monkeypatch.setattr('sys.argv', ['compare.py', *(str(ROOT / c) for c in configs), *arguments])
    compare.main()
    assert out.read_text() == capsys.readouterr().out
    first, second = (line.split(' | ') for line in out.read_text().splitlines()[2:])
    assert first[:2] == ['| pvtv2-b0_16xb64_in1k-256', '3.67'] and 'nano' in second[0]
    assert all(float(cell.strip(' |')) > 0 for row in (first, second) for cell in row[1:])
