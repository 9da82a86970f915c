"""Pictures of models: the numbers behind them, and that files come out whole."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from PIL import Image
from torch import nn

import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.attention_map import attention_maps
from swinv2_mm.analysis.bias_maps import bias_maps
from swinv2_mm.analysis.curves import default_keys, draw_curves, read_records, series
from swinv2_mm.analysis.rates import layer_rates
from swinv2_mm.analysis.signal import SignalRecorder
from swinv2_mm.checkpoint import save_pretrained
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import WindowAttention
from swinv2_mm.core.attention.eager import eager
from swinv2_mm.core.position_bias import pairwise_bias
from swinv2_mm.core.window_partition import window_grid

ARCH = {'embed_dim': 16, 'depths': (2, 1, 1, 1), 'num_heads': (1, 2, 2, 4)}
TOOL = 'analysis/plot'


def backbone():
    torch.manual_seed(0)
    return SwinTransformerV2(ARCH, window_size=4, drop_path_rate=0.0).eval()


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_pretrained(backbone(), path)
    return path


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp('pictures') / 'noise.png'
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ('size', 'window'), [((7, 10), (4, 4)), ((8, 8), (4, 2)), ((3, 9), (4, 4))]
)
@pytest.mark.parametrize('shifted', [False, True])
def test_attention_is_that_of_the_model(size, window, shifted):
    torch.manual_seed(0)
    attention = WindowAttention(
        8, num_heads=2, position_bias='log_cpb', pretrained_window_size=window, backend=eager
    ).eval()
    nn.init.normal_(attention.v_bias)
    attention.proj = nn.Identity()
    grid = window_grid(size, window=window, shifted=shifted, tiling='fixed')
    x = torch.randn(1, *size, 8)
    with torch.no_grad():
        expected = attention(x, grid)[0]
        v = (x[0] @ attention.qkv.weight[16:].t() + attention.v_bias).unflatten(-1, (2, 4))
        for query in [(0, 0), (size[0] - 1, size[1] - 1), (2, 5), (1, size[1] - 2)]:
            weights = attention.token_weights(x, grid, token=query)[0]
            assert (~weights.isnan()).sum() <= 2 * window[0] * window[1]
            known = weights.nan_to_num(0)
            torch.testing.assert_close(known.sum((1, 2)), torch.ones(2))
            out = torch.einsum('hij,ijhd->hd', known, v).flatten()
            torch.testing.assert_close(out, expected[query], atol=1e-5, rtol=1e-5)


def test_attention_of_the_named_pixel():
    model, image = backbone(), torch.randn(1, 3, 50, 70)
    first, last = attention_maps(model, image, pixel=(21, 66), layers=[(0, 1), (2, 0)])
    assert first.query == (5, 16) and last.query == (1, 4)
    assert first.weights.shape == (1, 13, 18) and last.weights.shape == (2, 4, 5)
    assert any(first.grid.shift) and not first.weights[:, 5, 16].isnan().any()
    with pytest.raises(ValueError, match='outside'):
        attention_maps(model, image, pixel=(50, 0), layers=[(0, 0)])


@pytest.mark.parametrize('window', [(4, 4), (6, 3)])
def test_bias_map_is_by_offset_of_the_key(window):
    model = backbone()
    found = bias_maps(model, layer=(1, 0), window=window).maps
    attention = model.layers[1].blocks[0].attn
    with torch.no_grad():
        grid = window_grid(window, window=window, shifted=False, tiling='fixed')
        pairs = pairwise_bias(attention.bias_table(grid), window=window)
    (mh, mw), number = window, window[0] * window[1]
    for query in range(number):
        for key in range(number):
            dy, dx = key // mw - query // mw, key % mw - query % mw
            assert torch.equal(found[:, dy + mh - 1, dx + mw - 1], pairs[:, query, key])


def test_signal_is_the_root_of_the_mean_square():
    model, images = backbone(), torch.randn(2, 3, 64, 64)
    recorder = SignalRecorder()
    with recorder.watching(model), torch.no_grad():
        model(images)
        stem = model.patch_embed(images)
    found = recorder.amplitudes()
    assert [name for name in found if name.startswith('main/')] == [
        'main/0.0', 'main/0.1', 'main/1.0', 'main/2.0', 'main/3.0',
    ]  # fmt: skip
    # Untrained blocks add nothing.
    assert found['attention/0.1'] == found['mlp/2.0'] == 0
    assert found['main/0.0'] == pytest.approx(stem.square().mean().sqrt().item())
    nn.init.ones_(model.layers[0].blocks[1].norm2.bias)
    recorder.reset()
    with recorder.watching(model), torch.no_grad():
        model(images)
    assert recorder.amplitudes()['mlp/0.1'] == pytest.approx(1)
    handles = [m._forward_hooks for m in model.modules() if m._forward_hooks]
    assert not handles


class Regressor(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = backbone().train()

    def forward(self, inputs, mode):
        return {'loss': self.backbone(inputs)[-1].square().mean()}


def test_signal_hook_writes_scalars(tmp_path):
    from swinv2_mm.analysis.signal_hook import SignalHook

    runner = Runner(
        Regressor(),
        str(tmp_path),
        train_dataloader=torch.utils.data.DataLoader([{'inputs': torch.randn(3, 32, 32)}] * 5),
        train_cfg={'by_epoch': False, 'max_iters': 5},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        custom_hooks=[SignalHook(interval=2)],
        log_level='WARNING',
        experiment_name='signal_hook',
    )
    runner.train()
    (file,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines()]
    signals = [record for record in records if 'signal/main/3.0' in record]
    assert [record['step'] for record in signals] == [1, 2, 4]
    assert all(record['signal/main/0.0'] > 0 for record in signals)
    assert not any(module._forward_hooks for module in runner.model.modules())
    with pytest.raises(ValueError, match='interval'):
        SignalHook(interval=0)


def write_run(work_dir, stamp, records, *, tail=''):
    folder = work_dir / stamp / 'vis_data'
    folder.mkdir(parents=True)
    lines = '\n'.join(json.dumps(record) for record in records)
    (folder / 'scalars.json').write_text(f'{lines}\n{tail}')


def iteration(step, loss, **more):
    return {'lr': 0.1, 'loss': loss, 'iter': step, 'step': step, **more}


def test_curves_of_a_resumed_run(tmp_path):
    first = [iteration(10, 5.0), iteration(20, 4.0), {'mIoU': 1.0, 'step': 20}, iteration(30, 9.0)]
    write_run(tmp_path, '20260101_000000', first, tail='{"loss": 3.0, "st')
    write_run(tmp_path, '20260102_000000', [iteration(30, 3.0), iteration(40, float('nan'))])
    (tmp_path / '20260103_000000' / 'vis_data').mkdir(parents=True)
    records = read_records(tmp_path)
    assert series(records, 'loss') == ([10, 20, 30], [5.0, 4.0, 3.0])
    assert series(records, 'mIoU') == ([20], [1.0])
    assert default_keys(records) == ['loss', 'mIoU', 'lr']


def test_curves_of_validations_by_epoch(tmp_path):
    records = [iteration(7 * i, 1.0, epoch=-(-i // 2)) for i in range(1, 5)]
    records += [{'top1': 50.0, 'step': 1}, {'top1': 60.0, 'step': 2}]
    # Amplitudes are logged by iteration beside them.
    records += [{'signal/main/0.0': 1.0, 'step': step} for step in (1, 20)]
    write_run(tmp_path, '20260101_000000', records)
    assert series(read_records(tmp_path), 'top1') == ([14, 28], [50.0, 60.0])
    assert series(read_records(tmp_path), 'signal/main/0.0')[0] == [1, 20]


CONFIG = f"""
model = dict(type='SwinV2', arch=dict({', '.join(f'{k}={v}' for k, v in ARCH.items())}),
             window_size=4, frozen_stages=0)
optim_wrapper = dict(
    type='AmpOptimWrapper', constructor='SwinV2OptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.5),
    optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1))
"""


@pytest.mark.parametrize('length', [5, 25, 90])
def test_legend_of_long_names_is_whole(length):
    runs = {str(n) * length: [{'step': 1, 'loss': 1.0}] for n in range(4)}
    figure = draw_curves(runs, keys=['loss'])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert -1 <= box.x0 and box.x1 <= figure.bbox.width + 1


def test_rates_by_layer(tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG)
    rates = {r.layer: r for r in layer_rates(Config.fromfile(tmp_path / 'config.py'))}
    assert list(rates) == ['stem', '0.0', '0.1', '1.0', '2.0', '3.0', 'norms']
    assert rates['stem'].rates == () and rates['0.1'].num_frozen > 0
    assert [rates[name].rates for name in ('1.0', '2.0', '3.0', 'norms')] == [
        (0.125,), (0.25,), (0.5,), (1.0,),
    ]  # fmt: skip
    assert rates['2.0'].weight_decay == 0.1 and rates['2.0'].num_exempt > 0
    assert rates['norms'].num_decayed == 0


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('runs') / 'costs_$5_<b>'
    write_run(work_dir, '20260101_000000', [iteration(i, 1 / i) for i in range(1, 20)])
    (work_dir / 'config.py').write_text(CONFIG)
    return work_dir


@pytest.mark.parametrize('suffix', ['png', 'svg'])
@pytest.mark.parametrize(
    ('command', 'words'),
    [
        (
            'bias {weights} {weights} --windows 4 6x8 --layers 3 --heads 0 3',
            ['head 3', 'window 6x8'],
        ),
        ('signal {weights} --images {picture} --size 64', ['main branch', 'tiny.safetensors']),
        (
            'attention {weights} {picture} --pixel 69,49 --size 64 --heads --layers 0.1',
            ['0.1, shifted, mean'],
        ),
        ('curves {run} {run}/20260101_000000/vis_data/scalars.json', ['loss', 'costs_$5_<b>']),
        ('rates {run}/config.py', ['stem', 'norms', 'weight decay']),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else '',
)
def test_files(command, words, suffix, tool, weights, picture, run, tmp_path):
    out = tmp_path / 'new' / f'figure.{suffix}'
    line = command.format(weights=weights, picture=picture, run=run).split()
    status, errors = tool(TOOL, *line, '--out', out)
    assert status == 0, errors
    if suffix == 'svg':
        texts = ' '.join(ElementTree.fromstring(out.read_text()).itertext())
        assert all(word in texts for word in words), texts
    else:
        pixels = np.asarray(Image.open(out).convert('L'))
        assert min(pixels.shape) > 300
        # Nothing is drawn across the edge.
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert edge.min() > 250


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('bias {weights} --layers 0.2', ['--layers', '2, 1, 1, 1 blocks']),
        ('bias {weights} --layers last', ["'last'"]),
        ('bias {weights} --heads 9', ['--heads']),
        ('bias {weights} --out x.gif', ['.png', '.svg']),
        ('bias nowhere.pth', ['nowhere.pth']),
        ('signal {weights} --images {weights}', ['tiny.safetensors', 'cannot be read']),
        ('signal {weights} --images {picture} --size 0', ['--size']),
        ('attention {weights} {picture} --pixel 70,0', ['--pixel', '70 x 50']),
        ('attention {weights} {picture} --pixel 1,1 --window-size 0', ['window_size']),
        ('curves /nowhere', ['/nowhere']),
        ('curves {run} --keys mIoU', ['mIoU', 'loss']),
        ('rates /nowhere.py', ['/nowhere.py']),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_bad_command_line(command, words, refused, weights, picture, run, tmp_path):
    line = command.format(weights=weights, picture=picture, run=run).split()
    if '--out' not in line:
        line += ['--out', tmp_path / 'figure.png']
    message = refused(TOOL, *line)
    assert all(word in message for word in words), message
    assert not (tmp_path / 'figure.png').exists()
