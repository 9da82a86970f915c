"""Trainings one after another in a process of a job, so that it imports once.

python parallel_runs.py RUNS.json LAUNCHER

RUNS.json lists dicts of the arguments of ``run``. Each leaves ``WORK_DIR/result_RANK.json``.
"""

# ruff: noqa: I001  mmdet may only be imported after swinv2_mm.models.
import json
import resource
import sys
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.logging import MMLogger

import swinv2_mm.models  # noqa: F401
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import TASK_UTILS
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.launch import build_runner
from swinv2_mm.engine.optimizer_state import state_bytes
from swinv2_mm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@TASK_UTILS.register_module()
class FirstSampler(RandomSampler):
    """Takes the first candidates: the same ones in whatever process and batch an image is."""

    def random_choice(self, gallery, num):
        return gallery[:num]


class Record(Hook):
    """Keeps the losses as all processes together have them."""

    def __init__(self):
        self.losses, self.norms, self.peak_bytes = {}, {}, 0

    def before_train(self, runner):
        self.peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().double()
        all_reduce(loss, 'mean')
        self.losses[runner.iter + 1] = float(loss)
        if 'train/grad_norm' in runner.message_hub.log_scalars:
            norm = runner.message_hub.get_scalar('train/grad_norm')
            self.norms[runner.iter + 1] = float(norm.current())


def run(config, options, work_dir, launcher, hooks=(), resume=None):
    cfg = load_config(str(ROOT / 'configs' / config), options)
    cfg.custom_hooks += list(hooks)
    if resume:
        cfg.resume, cfg.load_from = True, resume
    runner, record = build_runner(cfg, work_dir=work_dir, launcher=launcher), Record()
    runner.register_hook(record)
    runner.train()
    optimizer = runner.optim_wrapper.optimizer
    return {
        'losses': record.losses,
        'norms': record.norms,
        'peak_bytes': record.peak_bytes,
        'state_bytes': state_bytes(optimizer),
        'lr': max(group['initial_lr'] for group in optimizer.param_groups),
    }


if __name__ == '__main__':
    torch.set_num_threads(1)
    for settings in json.loads(Path(sys.argv[1]).read_text()):
        MMLogger._instance_dict.clear()
        try:
            result = run(**settings, launcher=sys.argv[2])
        except UserError as error:
            result = {'error': str(error)}
        folder = Path(settings['work_dir'])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'result_{get_rank()}.json').write_text(json.dumps(result))
