"""Bad input to the tools: one clear line and exit status 1."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import swinv2_mm.cli
from swinv2_mm.config.file import load_config

CONFIGS = ROOT / 'configs'
CLASSIFIER = CONFIGS / 'classification' / 'swinv2-nano-w8_digits.py'
DETECTOR = CONFIGS / 'detection' / 'cascade-mask-rcnn_swinv2-nano-w8_digits.py'
TINY = [
    'model.backbone.arch=dict(embed_dim=16,depths=(1,1,1,1),num_heads=(1,2,4,8))',
    'model.head.in_channels=128',
]
SHORT = ['train_cfg.max_iters=2', 'train_dataloader.num_workers=1', 'train_dataloader.batch_size=4']


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['train_cfg.max_iter=3'], ['train_cfg.max_iter', 'did you mean', 'max_iters']),
        (['model.backbone.windowsize=16'], ['did you mean', 'model.backbone.window_size']),
        (['optim_wraper.optimizer.lr=1'], ['optim_wraper', 'did you mean', 'optim_wrapper']),
        (['optim_wrapper.optimizer.lrr=1'], ['did you mean', 'optimizer.lr']),
        (['train_dataloader.batchsize=1'], ['did you mean', 'batch_size']),
        (['param_scheduler.7.end=1'], ['list of 2']),
        (['model'], ['key=value']),
        (['model.backbone.window_size=0'], ['window_size', 'positive']),
        (['model.backbone.window_size=-8'], ['window_size', 'positive']),
        (['model.backbone.arch=tinny'], ['unknown arch', "did you mean 'tiny'"]),
        (['model.backbone.attention=fast'], ['unknown attention', 'sdpa']),
        (['model.backbone.type=SwinV3'], ['SwinV3']),
        (['+model.backbone.drop=1'], ['drop']),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and '=' in value[0] else '',
)
def test_bad_option(options, words, refused, use_data, tmp_path):
    line = refused('train', CLASSIFIER, '--work-dir', tmp_path, '--cfg-options', *SHORT, *options)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1e-3', 1e-3),
        ('(8, 16)', (8, 16)),
        ('[1,2]', [1, 2]),
        ('tiny', 'tiny'),
        ('true', True),
        ('None', None),
        ('/a/b-c.json', '/a/b-c.json'),
        (
            'dict(embed_dim=16,depths=(1,2),name=x)',
            {'embed_dim': 16, 'depths': (1, 2), 'name': 'x'},
        ),
    ],
)
def test_option_values(text, value):
    cfg = load_config(str(CLASSIFIER), [f'+some.key={text}'])
    assert cfg.some.key == value


def test_option_value_that_is_no_literal(refused, tmp_path):
    assert 'range(3,4)' in refused(
        'train', CLASSIFIER, '--cfg-options', 'model.backbone.arch=range(3,4)'
    )


def test_config_that_does_not_exist(refused):
    assert 'configs/nowhere.py' in refused('train', 'configs/nowhere.py')


def test_config_that_is_not_valid(refused, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text('model = dict(\n')
    assert 'broken.py' in refused('train', path)


def test_data_root_missing(refused, monkeypatch, tmp_path):
    monkeypatch.setenv('SWINV2_DATA', '/nowhere')
    line = refused('train', CLASSIFIER, '--work-dir', tmp_path)
    assert '/nowhere/digits' in line and 'SWINV2_DATA' in line


@pytest.fixture
def own_digits(digits_root, monkeypatch, tmp_path):
    """A copy of the data set that a test may break."""
    shutil.copytree(digits_root / 'digits', tmp_path / 'data' / 'digits')
    monkeypatch.setenv('SWINV2_DATA', str(tmp_path / 'data'))
    return tmp_path / 'data' / 'digits'


@pytest.mark.parametrize('content', ['{"images": [', '', '<html></html>', '\xff\xfe'])
def test_annotation_file_that_is_not_json(content, refused, own_digits, tmp_path):
    path = own_digits / 'annotations' / 'train.json'
    path.write_text(content, encoding='latin-1')
    line = refused('train', DETECTOR, '--work-dir', tmp_path / 'run', '--cfg-options', *SHORT)
    assert str(path) in line and ('is not JSON' if content else 'is empty') in line


def test_annotation_file_missing(refused, own_digits, tmp_path):
    (own_digits / 'annotations' / 'train.json').unlink()
    assert 'annotations/train.json' in refused('train', DETECTOR, '--work-dir', tmp_path / 'run')


@pytest.mark.parametrize('num_workers', [0, 1])
@pytest.mark.parametrize('kept', [0.5, 0.0])
def test_truncated_image(kept, num_workers, refused, own_digits, tmp_path):
    for path in (own_digits / 'images' / 'train').glob('*.jpg'):
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
    options = [*SHORT, f'train_dataloader.num_workers={num_workers}']
    options.append('train_dataloader.persistent_workers=False')
    line = refused('train', DETECTOR, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert 'images/train/' in line and ('cannot be read' if kept else 'is empty') in line


class TestCheckpoints:
    @pytest.fixture(scope='class')
    def shared_run(self, tmp_path_factory):
        return tmp_path_factory.mktemp('run')

    @pytest.fixture
    def trained(self, tool, use_data, shared_run, tmp_path):
        """A copy of a checkpoint that is trained once for all tests."""
        path = shared_run / 'iter_2.pth'
        if not path.exists():
            options = [*SHORT, 'default_hooks.checkpoint.interval=2', '+val_dataloader=None']
            options += ['+val_cfg=None', '+val_evaluator=None']
            status, errors = tool(
                'train', CLASSIFIER, '--work-dir', shared_run, '--cfg-options', *options
            )
            assert status == 0, errors
        return Path(shutil.copy(path, tmp_path))

    @pytest.fixture
    def refuse(self, refused, tmp_path):
        return partial(refused, 'test', CLASSIFIER, '--work-dir', tmp_path / 't')

    def test_missing(self, refuse, use_data, tmp_path):
        assert 'does not exist' in refuse(tmp_path / 'no.pth')

    def test_of_another_architecture(self, refuse, trained):
        options = [
            '--cfg-options',
            'model.backbone.arch.embed_dim=64',
            'model.head.in_channels=512',
        ]
        message = refuse(trained, *options)
        assert 'does not fit' in message and 'shape' in message

    def test_with_fewer_blocks(self, refuse, trained):
        options = ['--cfg-options', 'model.backbone.arch.depths=(2,2,2,2)']
        assert 'no place' in refuse(trained, *options)

    def test_config_text_is_not_run_on_resuming(self, tool, trained, tmp_path):
        checkpoint = torch.load(trained, weights_only=False)
        ran = tmp_path / 'ran'
        checkpoint['meta']['config'] = f'open({str(ran)!r}, "w")'
        torch.save(checkpoint, tmp_path / 'poisoned.pth')
        options = ['train_cfg.max_iters=4', *SHORT[1:], '+val_dataloader=None', '+val_cfg=None']
        status, errors = tool(
            'train', CLASSIFIER, '--work-dir', tmp_path / 'again', '--resume',
            tmp_path / 'poisoned.pth', '--cfg-options', *options, '+val_evaluator=None',
        )  # fmt: skip
        assert status == 0, errors
        assert (tmp_path / 'again' / 'iter_4.pth').exists() and not ran.exists()


def test_amp_without_a_gpu(refused, use_data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    assert 'GPU' in refused('train', CLASSIFIER, '--amp', '--work-dir', tmp_path)


def test_auto_scale_lr_without_a_base_batch_size(refused, use_data, tmp_path):
    assert 'base_batch_size' in refused(
        'train', DETECTOR, '--auto-scale-lr', '--work-dir', tmp_path
    )


class TestSavedConfig:
    """A training saves what its user wrote, and no other command changes that file."""

    @pytest.fixture
    def run(self, tool, use_data, tmp_path):
        def run(name, *arguments):
            status, errors = tool(name, *arguments, '--work-dir', tmp_path / 'run')
            assert status == 0, errors

        return run

    def test_by_training_testing_and_resuming(self, run, tmp_path):
        options = [*SHORT, *TINY, 'default_hooks.checkpoint.interval=1']
        options += ['accumulate=2', "log_to=['tensorboard']", 'train_cfg.max_iters=1']
        options += ['+test_dataloader.dataset.indices=4', 'train_cfg.val_interval=9']
        leaf = tmp_path / 'leaf.py'
        leaf.write_text(f'_base_ = {str(CLASSIFIER)!r}\nload_from = None\n')
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            run('train', leaf, '--cfg-options', *options)
            saved = tmp_path / 'run' / 'leaf.py'
            wanted = load_config(str(leaf), options)
            wanted.work_dir = str(tmp_path / 'run')
            assert load_config(str(saved)).to_dict() == wanted.to_dict()
            text = saved.read_bytes()
            weights = tmp_path / 'run' / 'iter_1.pth'
            run('test', saved, weights, '--tta', '--cfg-options', 'tta.scales=[1.0]')
            run('test', saved, weights, '--show-dir', tmp_path / 'shown')
            run('train', saved, '--resume')
            assert saved.read_bytes() == text
            assert [path.name for path in saved.parent.glob('*.py')] == ['leaf.py']
            # A change of the user's is saved, and the switch that resumes is not.
            run('train', saved, '--resume', '--cfg-options', 'train_cfg.max_iters=2')
        wanted.train_cfg.max_iters = 2
        assert load_config(str(saved)).to_dict() == wanted.to_dict()
        assert (tmp_path / 'run' / 'iter_2.pth').exists()

    def test_config_of_a_caller_is_not_modified(self, use_data, tmp_path):
        options = [*SHORT, *TINY, '+val_dataloader=None', '+val_cfg=None', '+val_evaluator=None']
        options += ['accumulate=2', 'default_hooks.checkpoint.interval=2']
        options += ['+test_dataloader.dataset.indices=4']
        cfg = load_config(str(CLASSIFIER), options)
        before = cfg.to_dict()
        runner = swinv2_mm.cli.train(cfg, work_dir=tmp_path)
        metrics = swinv2_mm.cli.test(
            cfg, tmp_path / 'iter_2.pth', tta=True, work_dir=tmp_path / 'test',
            out=tmp_path / 'a.json',
        )  # fmt: skip
        assert runner.iter == 2 and cfg.to_dict() == before
        assert metrics == json.loads((tmp_path / 'a.json').read_text())['metrics']
        assert 0 <= metrics['accuracy/top1'] <= 100
