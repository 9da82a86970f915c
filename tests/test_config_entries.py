"""The table of our own config entries, and everybody who reads it."""

import inspect
import re
import sys

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.runner import Runner

import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.accepted_keys import (
    LOADER_KEYS,
    OWN_PARAMWISE,
    PARAMWISE,
    RUNNER_ENTRIES,
    accepted_keys,
)
from swinv2_mm.config.entries import ENTRIES, read_entry
from swinv2_mm.config.file import load_config
from swinv2_mm.config.options import apply_options, parse_value
from swinv2_mm.engine.optimizer import SwinV2OptimWrapperConstructor
from swinv2_mm.errors import UserError

CLASSIFIER = ROOT / 'configs' / 'classification' / 'swinv2-nano-w8_digits.py'


@pytest.mark.parametrize('name', ENTRIES)
def test_a_default_is_a_value(name):
    entry = ENTRIES[name]
    assert read_entry({}, name) == entry.default
    assert entry.default is None or entry.read(entry.default) == entry.default


@pytest.mark.parametrize(
    ('name', 'value', 'read'),
    [
        ('parallel', 'zero1', {'type': 'zero1'}),
        (
            'parallel',
            {'type': 'fsdp', 'shards': 8},
            {'type': 'fsdp', 'init': 'whole', 'checkpoint': 'whole', 'shards': 8},
        ),
        ('accumulate', 4, 4),
        ('precision', 'bf16', 'bf16'),
        ('fresh_parameters', 'head', ['head']),
        ('log_to', ('wandb',), ['wandb']),
        ('bad_data', 'skip', dict.fromkeys(('train', 'val', 'test', 'infer'), 'skip')),
        (
            'bad_data',
            {'val': 'skip'},
            {'train': 'raise', 'val': 'skip', 'test': 'raise', 'infer': 'raise'},
        ),
        ('tta', {'scales': 1, 'flips': 'none'}, {'scales': [1], 'flips': ['none']}),
        ('tta', {'nms': None}, {'nms': None}),
        ('find_unused_parameters', True, True),
    ],
)
def test_values(name, value, read):
    assert read_entry({name: value}, name) == read


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('parallel', 'zero2'),
        ('parallel', {'type': 'ddp', 'shards': 2}),
        ('parallel', {'type': 'fsdp', 'shards': 0}),
        ('accumulate', 0),
        ('accumulate', True),
        ('accumulate', None),
        ('precision', 'bfloat16'),
        ('sync_bn', True),
        ('find_unused_parameters', 'yes'),
        ('find_unused_parameters', 1),
        ('fresh_parameters', 3),
        ('head_class_map', ['map.txt']),
        ('bad_data', {'validation': 'skip'}),
        ('tta', 2),
        ('tta', {'scales': [1, 1], 'flips': 'none'}),
        ('log_to', ['tensorbord']),
    ],
)
def test_wrong_values(name, value):
    with pytest.raises(UserError, match=name):
        read_entry({name: value}, name)


def test_the_documented_table():
    text = (ROOT / 'docs' / 'configs.md').read_text()
    expected = [f'| `{name}` | {entry.meaning} |' for name, entry in ENTRIES.items()]
    start = text.index('## Entries beyond MMEngine')
    rows = [
        row
        for row in text[start : text.index('\n## ', start + 1)].splitlines()
        if re.match(rf'\| `({"|".join(ENTRIES)})` \|', row)
    ]
    assert rows == expected, '\n'.join(['the rows should be:', *expected])


def test_every_own_entry_is_read_through_the_table():
    """But ``parallel`` is what ``apply_parallel`` left, and MMEngine reads ``sync_bn``."""
    names = '|'.join(set(ENTRIES) - {'parallel', 'sync_bn'})
    direct = re.compile(rf"cfg\.get\('({names})'|cfg\['({names})'\]")
    found = {
        f'{path.relative_to(ROOT)}: {match[0]}'
        for folder in ('swinv2_mm', 'tools')
        for path in (ROOT / folder).rglob('*.py')
        for match in direct.finditer(path.read_text())
    }
    assert not found


@pytest.mark.parametrize('line', ['acumulate = 4', "precison = 'bf16'", 'optim_wraper = dict()'])
def test_a_misspelt_entry_of_a_file(line, tmp_path):
    path = tmp_path / 'leaf.py'
    path.write_text(f"_base_ = '{CLASSIFIER}'\n{line}\n")
    with pytest.raises(UserError, match='did you mean'):
        load_config(str(path))


def test_an_entry_of_mmdet_2(tmp_path):
    path = tmp_path / 'old.py'
    path.write_text("lr_config = dict(policy='step', step=[8, 11])\ntotal_epochs = 12\n")
    with pytest.raises(UserError, match=r'lr_config.*param_scheduler'):
        load_config(str(path))


def test_variables_of_a_file_stay(tmp_path):
    path = tmp_path / 'leaf.py'
    path.write_text(f"_base_ = '{CLASSIFIER}'\nimage_size = 4\ntrain_pipeline = []\nmodel_2 = 1\n")
    assert load_config(str(path)).image_size == 4


@pytest.mark.parametrize(
    'option',
    [
        'train_dataloader.persistent_workers=False',
        'train_dataloader.prefetch_factor=4',
        'val_dataloader.pin_memory=True',
        'train_dataloader.drop_last=True',
        'train_cfg.val_begin=1',
        'val_cfg.fp16=True',
        'optim_wrapper.accumulative_counts=2',
        'optim_wrapper.clip_grad.norm_type=1',
        'optim_wrapper.constructor=DefaultOptimWrapperConstructor',
        'param_scheduler.0.convert_to_iter_based=True',
        'auto_scale_lr.enable=True',
        'randomness.deterministic=True',
        'env_cfg.dist_cfg.timeout=60',
        'env_cfg.resource_limit=9000',
        'model_wrapper_cfg.type=MMDistributedDataParallel',
        'compile=True',
        'accumulate=2',
        'sync_bn=torch',
        'start_from=weights.pth',
    ],
)
def test_what_is_passed_on_is_known(option):
    cfg = load_config(str(CLASSIFIER), [option])
    key, _, value = option.partition('=')
    for part in key.split('.'):
        cfg = cfg[int(part)] if part.isdecimal() else cfg[part]
    assert cfg == parse_value(value)


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('train_dataloader.persistant_workers', 'persistent_workers'),
        ('randomness.determinstic', 'deterministic'),
        ('env_cfg.cudnn_benchmrk', 'cudnn_benchmark'),
        ('optim_wrapper.clip_grad.maxnorm', 'max_norm'),
        ('optim_wrapper.paramwise_cfg.layer_decay', 'layer_decay_rate'),
        ('acumulate', 'accumulate'),
    ],
)
def test_what_nothing_takes_is_refused(key, meant):
    cfg = load_config(str(CLASSIFIER))
    cfg.optim_wrapper.paramwise_cfg = dict()
    cfg.optim_wrapper.clip_grad = dict()
    with pytest.raises(UserError, match=f'did you mean .*{meant}'):
        apply_options(cfg, [f'{key}=1'])


def test_keys_that_other_code_takes_out_of_a_dict():
    """Those are in no signature: the lists must not outlive them."""
    places = {
        Runner: RUNNER_ENTRIES,
        Runner.build_dataloader: LOADER_KEYS,
        DefaultOptimWrapperConstructor: PARAMWISE,
        SwinV2OptimWrapperConstructor: OWN_PARAMWISE,
    }
    for where, keys in places.items():
        source = inspect.getsource(where)
        assert [key for key in keys if f"'{key}'" not in source] == []


def test_free_names():
    cfg = Config(dict(default_hooks=dict()))
    assert accepted_keys(cfg, cfg.default_hooks, ['default_hooks']) is None


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ("[dict(type='EMAHook')]", [{'type': 'EMAHook'}]),
        ('[dict(type=EMAHook,momentum=1e-4),dict(type=X)]',
         [{'type': 'EMAHook', 'momentum': 1e-4}, {'type': 'X'}]),
        ('dict(a=[dict(b=(1,c))])', {'a': [{'b': (1, 'c')}]}),
        ('{"a": true}', {'a': True}),
        ('a,b', ['a', 'b']),
        ('(a,b)', ('a', 'b')),
        ('[/x/a.json,/x/b-c.json]', ['/x/a.json', '/x/b-c.json']),
        ('swinv2-t.pth', 'swinv2-t.pth'),
        ('mmdet.ResNet', 'mmdet.ResNet'),
        ('/data/a (1)/x #2.json', '/data/a (1)/x #2.json'),
        ('name#1', 'name#1'),
        ("'#fff'", '#fff'),
        ('-8', -8),
        ('inf', float('inf')),
        ('False', False),
        ('', ''),
    ],
)  # fmt: skip
def test_values_of_options(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize(
    'text', ['range(3,4)', '[1,2', '{a:1}', 'dict(1,2)', 'dict(a=/x)', '[' * 5000]
)
def test_values_that_cannot_be_read(text):
    with pytest.raises(UserError, match='cannot read'):
        parse_value(text)


def test_what_an_option_names_is_imported(tmp_path, monkeypatch):
    """MMEngine imports only what a file names: classes of an option were not registered."""
    (tmp_path / 'named_by_an_option.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    cfg = Config({'custom_imports': {'imports': ['swinv2_mm.models']}})
    apply_options(cfg, ['custom_imports.imports=["swinv2_mm.models","named_by_an_option"]'])
    assert sys.modules.pop('named_by_an_option')
    with pytest.raises(UserError, match=r'custom_imports.*absent_module'):
        apply_options(cfg, ['custom_imports.imports=["absent_module"]'])
