"""The studies of dev/evidence.yml can be run, and what is finished is kept."""

import json

import pytest
import yaml
from conftest import ROOT

from dev import evidence
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import UserError

KEYS = {'train', 'test', 'start', 'as_long_as', 'options', 'arguments', 'shared'}
STUDIES = yaml.safe_load(evidence.STUDIES.read_text())


@pytest.mark.parametrize('name', STUDIES)
def test_steps_and_options_of_a_study_fit(name, tmp_path):
    study = evidence.Study(name, STUDIES[name], tmp_path)
    steps = study.content['steps']
    assert set(study.rows) <= set(steps) and study.content['metrics'] and study.content['about']
    for step in steps.values():
        assert step.keys() <= KEYS
        for needed in ('test', 'start', 'as_long_as'):
            assert step.get(needed, next(iter(steps))) in steps
        if 'train' in step:
            options = [*study.content.get('options', ()), *step.get('options', ())]
            options += evidence.longer(step['train'], factor=2)
            cfg = load_config(str(ROOT / step['train']), options)
            hooks = [hook.type for hook in cfg.get('custom_hooks') or ()]
            imported = cfg.custom_imports.imports
            assert 'SignalHook' not in hooks or 'swinv2_mm.analysis.signal_hook' in imported


def test_means_spread_and_equal_times():
    assert evidence.text([1.0]) == '1.0' and evidence.text([60.0, 62.0]) == '61.0 ± 1.4'
    assert evidence.text([0.1, 0.2]) == '0.150 ± 0.071'
    config = STUDIES['simmim-flowers']['steps']['from SimMIM']['train']
    assert 'train_cfg.max_epochs=30' in evidence.longer(config, factor=2)


@pytest.mark.slow
def test_a_study_runs_and_goes_on(digits_root, tmp_path, monkeypatch, capsys):
    config = 'configs/classification/swinv2-nano-w8_digits.py'
    monkeypatch.setenv('SWINV2_DATA', str(digits_root))
    small = [
        'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2',
        'train_dataloader.batch_size=4', 'default_hooks.logger.interval=1',
    ]  # fmt: skip
    content = {
        'about': 'digits', 'hours': 0, 'metrics': {'accuracy/top1': 'top-1, %'}, 'options': small,
        'steps': {
            'first': {'train': config, 'shared': True},
            'tuned': {'train': config, 'start': 'first'},
            'tested': {'test': 'first', 'arguments': ['--window-size', '4']},
        },
    }  # fmt: skip
    (tmp_path / 'studies.yml').write_text(yaml.safe_dump({'digits': content}))
    monkeypatch.setattr(evidence, 'STUDIES', tmp_path / 'studies.yml')
    stopped = tmp_path / 'first/seed-0/last_checkpoint'
    stopped.parent.mkdir(parents=True)
    stopped.write_text('of a training that was stopped')
    monkeypatch.setattr(
        'sys.argv', ['evidence.py', 'digits', '--seeds', '0', '1', '--work-dir', str(tmp_path)]
    )
    evidence.main()
    table = (tmp_path / 'digits/table.md').read_text()
    assert table in capsys.readouterr().out and table.count('±') == 6
    assert (tmp_path / 'digits/curves.png').is_file()
    result = tmp_path / 'first/seed-0/result.json'
    # What is finished is not run again; another command in its folder is refused.
    monkeypatch.setattr(evidence, 'processor_time', None)
    evidence.main()
    changed = json.loads(result.read_text()) | {'command': ['another']}
    result.write_text(json.dumps(changed))
    with pytest.raises(UserError, match='another command'):
        evidence.main()
