"""The same training reaches the same score whichever way the attention is computed."""

import json
from contextlib import contextmanager

import pytest
import torch
from conftest import ROOT, SHARED_DATA
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

# Five of each of five classes; guessing gives 20 %.
INDICES = json.dumps(list(range(0, 600, 24))).replace(' ', '')
SETTINGS = [
    'train_cfg.max_epochs=140',
    'param_scheduler.0.end=10',
    'param_scheduler.1.begin=10',
    'param_scheduler.1.end=140',
    'param_scheduler.1.T_max=130',
    'train_dataloader.batch_size=25',
    'model.backbone.drop_path_rate=0.0',
    'train_dataloader.dataset.pipeline.2.crop_ratio_range=(0.5,1.0)',
    # Stage 0 still has four windows, shifted in every second block.
    'train_dataloader.dataset.pipeline.2.scale=64',
    'test_dataloader.dataset.pipeline.1.scale=73',
    'test_dataloader.dataset.pipeline.2.crop_size=64',
    f'+train_dataloader.dataset.indices={INDICES}',
    f'+test_dataloader.dataset.indices={INDICES}',
]
VARIANTS = {
    'eager': ['model.backbone.attention=eager'],
    'sdpa': ['model.backbone.attention=sdpa'],
    'sequential': ['model.backbone.attention=sequential'],
    'bf16': ['model.backbone.attention=sdpa', 'optim_wrapper.type=CpuAutocastOptimWrapper'],
}


@OPTIM_WRAPPERS.register_module()
class CpuAutocastOptimWrapper(OptimWrapper):
    """MMEngine's AmpOptimWrapper refuses to run without a GPU."""

    @contextmanager
    def optim_context(self, model):
        with torch.autocast('cpu', dtype=torch.bfloat16), super().optim_context(model):
            yield


@pytest.mark.slow
def test_same_score(tool, use_data, tmp_path):
    if not SHARED_DATA.is_dir():
        pytest.skip('needs ../shared/data')
    scores, losses = {}, {}
    for name, options in VARIANTS.items():
        config = ROOT / 'configs/classification/swinv2-nano-w8_flowers.py'
        work_dir = tmp_path / name
        options = [*SETTINGS, *options]
        no_validation = ['+val_dataloader=None', '+val_cfg=None', '+val_evaluator=None']
        status, errors = tool(
            'train', config, '--work-dir', work_dir, '--cfg-options', *options, *no_validation
        )
        assert status == 0, errors
        log = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
        losses[name] = [json.loads(line)['loss'] for line in log if '"loss"' in line]
        checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
        status, errors = tool(
            'test', config, checkpoint, '--work-dir', work_dir / 'test',
            '--out', work_dir / 'scores.json', '--cfg-options', *options,
            'test_dataloader.dataset.data_prefix=train',
        )  # fmt: skip
        assert status == 0, errors
        metrics = json.loads((work_dir / 'scores.json').read_text())['metrics']
        scores[name] = metrics['accuracy/top1']
        print(f'{name}: top-1 {scores[name]:.1f} %, loss {losses[name][0]:.3f} to '
              f'{losses[name][-1]:.4f}')  # fmt: skip
    assert set(scores.values()) == {100.0}, scores
