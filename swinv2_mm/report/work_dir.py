"""Read the environment, speed and settings of a training from its work dir."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from swinv2_mm.analysis.curves import Record, is_training

_TIME_STAMP = re.compile(r'\d{8}_\d{6}')


def environment_in(work_dir: Path) -> dict[str, str]:
    """Read the environment that the last training wrote to its log; empty without a log."""
    logs = sorted(
        path for path in work_dir.glob('*/*.log') if _TIME_STAMP.fullmatch(path.parent.name)
    )
    found: dict[str, str] = {}
    for line in logs[-1].read_text(errors='replace').splitlines() if logs else ():
        if ' - Config:' in line:
            break
        name, separator, value = line.strip().partition(': ')
        if separator and ' - ' not in name and value and not line.lstrip().startswith('- '):
            found[name] = value
    return found


def speed_of(records: Sequence[Record], *, cfg: Config, is_gpu: bool = False) -> dict[str, str]:
    """Return the speed and memory of a training; medians over its log lines.

    Args:
        records: Records of its log.
        cfg: Its config.
        is_gpu: Whether it ran on a GPU, so that its memory is the GPU's.
    """
    training = [record for record in records if is_training(record)]
    facts = {}
    times = [record['time'] for record in training if record.get('time', 0) > 0]
    if times:
        median = statistics.median(times)
        batch = (cfg.get('train_dataloader') or {}).get('batch_size')
        facts['time per iteration'] = f'{median:.3f} s'
        if batch:
            facts['images per second and process'] = f'{batch / median:.1f}'
        waiting = [record['data_time'] for record in training if 'data_time' in record]
        if waiting:
            facts['of it, waiting for data'] = f'{statistics.median(waiting):.3f} s'
        facts['iterations'] = f'{max(record["step"] for record in training):.0f}'
    memory = [record['memory'] for record in training if 'memory' in record]
    if memory:
        kind = 'GPU memory' if is_gpu else 'memory of the process (RAM)'
        facts[f'peak {kind}'] = f'{max(memory):.0f} MB'
    tests = [r['time'] for r in records if not is_training(r) and r.get('time', 0) > 0]
    if tests:
        facts['validation, per batch'] = f'{statistics.median(tests):.3f} s'
    return facts


def settings_of(cfg: Config) -> dict[str, str]:
    """Summarise the model, data and schedule of a training in a few lines."""
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    loop, loader = cfg.get('train_cfg') or {}, cfg.get('train_dataloader') or {}
    length = [f'{loop[key]} {word}' for key, word in
              (('max_iters', 'iterations'), ('max_epochs', 'epochs')) if key in loop]  # fmt: skip
    data = (cfg.get('val_dataloader') or {}).get('dataset') or {}
    arch = backbone.get('arch', 'tiny')
    if isinstance(arch, dict):
        arch = ', '.join(f'{key} {value}' for key, value in arch.items())
    facts = {
        'model': model.get('type'),
        'backbone': f'{backbone.get("type")}, {arch}',
        'window': backbone.get('window_size'),
        'starts from': (backbone.get('init_cfg') or {}).get('checkpoint') or cfg.get('load_from'),
        'data': data.get('data_root'),
        'training': ', '.join(length) or None,
        'batch size per process': loader.get('batch_size'),
        'optimiser': f'{optimizer.get("type")}, lr {optimizer.get("lr")}, weight decay '
        f'{optimizer.get("weight_decay", 0)}' if optimizer else None,
        'seed': (cfg.get('randomness') or {}).get('seed'),
    }  # fmt: skip
    return {key: str(value) for key, value in facts.items() if value is not None}
