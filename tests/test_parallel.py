"""Trainings spread over two processes on a CPU are the training of one with the same batch."""

import json
import pickle
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from forked import fork_script, status_of
from mmengine.config import Config
from safetensors.torch import load_file
from test_distributed import free_port

from swinv2_mm.checkpoint import CheckpointError
from swinv2_mm.checkpoint import sharded as sharded_files
from swinv2_mm.checkpoint.sharded import consolidate, load_sharded, save_sharded
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.parallel import apply_parallel
from swinv2_mm.errors import UserError

CONFIGS = {
    'classifier': 'classification/swinv2-nano-w8_digits.py',
    'UperNet': 'segmentation/upernet_swinv2-nano-w8_digits.py',
    'Cascade Mask R-CNN': 'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
}
FRAGMENTS = sorted((ROOT / 'configs/_base_/strategies').glob('*.py'))
KINDS = ['ddp', 'zero1', 'fsdp']
# What makes one process and several the same by arithmetic (docs/scaling.md): nothing is drawn in
# the model, no statistics of a batch, and as many terms in every loss of every image.
EQUAL = {
    'classifier': ['model.head.in_channels=128'],
    'UperNet': [
        'model.decode_head.in_channels=[16,32,64,128]',
        'model.auxiliary_head.in_channels=64',
        'model.decode_head.loss_decode.class_weight=None',
        *(f'model.{head}.dropout_ratio=0.0' for head in ('decode_head', 'auxiliary_head')),
        *(
            f'model.{head}.norm_cfg=dict(type=GN,num_groups=4)'
            for head in ('decode_head', 'auxiliary_head')
        ),
    ],
    'Cascade Mask R-CNN': [
        'model.neck.in_channels=[16,32,64,128]',
        'model.train_cfg.rpn.sampler.type=FirstSampler',
        # Or Adam divides gradients that are mere rounding by themselves, and by and by a proposal
        # falls to the other side of a threshold: 2e-3 in one loss of FSDP.
        'optim_wrapper.optimizer.eps=1e-4',
        # One positive each: every image has one.
        *(
            f'model.train_cfg.rcnn.{stage}.sampler='
            f'dict(type=FirstSampler,num={num},pos_fraction={1 / num})'
            for stage, num in enumerate((32, 16, 8))
        ),
    ],
}  # fmt: skip


def settings(task, work_dir, *options, iterations, batch, is_validated=False, **others):
    """One run of tests/parallel_runs.py."""
    return {
        'config': CONFIGS[task],
        'work_dir': str(work_dir),
        'options': [
            'model.backbone.arch=dict(embed_dim=16,depths=(1,2,1,1),num_heads=(1,2,4,8))',
            'model.backbone.drop_path_rate=0.0',
            *EQUAL[task],
            'train_dataloader.num_workers=0',
            '+train_dataloader.persistent_workers=False',
            f'train_dataloader.batch_size={batch}',
            f'train_cfg.max_iters={iterations}',
            *(
                ()
                if is_validated
                else ('val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')
            ),
            f'default_hooks.checkpoint.interval={iterations // 2}',
            'default_hooks.logger.interval=1',
            *options,
        ],
        **others,
    }


def train(runs, folder, environment, *, num_processes=2, port=29650, timeout_s=900):
    """Train all in one job; returns for each what every process says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'runs.json').write_text(json.dumps(runs))
    launch, launcher = [], 'none'
    if num_processes:
        launch = ['-m', 'torch.distributed.run', f'--nproc_per_node={num_processes}']
        launch, launcher = [*launch, f'--master_port={port}'], 'pytorch'
    done = subprocess.run(
        [sys.executable, *launch, 'tests/parallel_runs.py', folder / 'runs.json', launcher],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return results_of(runs, num_processes=max(num_processes, 1))


def results_of(runs, *, num_processes):
    return [
        [
            json.loads((ROOT / run['work_dir'] / f'result_{rank}.json').read_text())
            for rank in range(num_processes)
        ]
        for run in runs
    ]


def train_forked(runs, folder, *, port):
    """As ``train`` with two processes, which are forked: they import nothing, and share memory."""
    (folder / 'runs.json').write_text(json.dumps(runs))
    outputs = [folder / f'{rank}.txt' for rank in range(2)]
    processes = [
        fork_script(
            ROOT / 'tests/parallel_runs.py', folder / 'runs.json', 'pytorch', output=output,
            environment={
                'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2',
                'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
            },
        )
        for rank, output in enumerate(outputs)
    ]  # fmt: skip
    for process, output in zip(processes, outputs, strict=True):
        assert status_of(process) == 0, output.read_text()[-4000:]
    return results_of(runs, num_processes=2)


def largest_difference(one, other):
    return max(abs(one[i] - other[i]) for i in other)


def distance(one, other):
    assert one.keys() == other.keys()
    return sum((one[name].double() - other[name].double()).abs().sum() for name in one)


def test_zero1_saves_and_fsdp_goes_on(use_data, tmp_path):
    sharded = 'parallel=dict(type=fsdp,init=sharded,checkpoint=sharded)'
    common = {'iterations': 4, 'batch': 4}
    before, after = train_forked(
        [
            settings('classifier', tmp_path / 'zero1', 'parallel=zero1', **common),
            settings(
                'classifier', tmp_path / 'fsdp', sharded,
                resume=str(tmp_path / 'zero1/iter_2.pth'), **common,
            ),
        ],
        tmp_path, port=free_port(),
    )  # fmt: skip
    assert list(after[0]['losses']) == ['3', '4']
    assert largest_difference(before[0]['losses'], after[0]['losses']) < 1e-4
    sizes = [rank['state_bytes'] for rank in (*before, *after)]
    assert max(sizes) < 1.05 * min(sizes)
    assert (tmp_path / 'zero1/iter_4.pth').is_file() and (tmp_path / 'fsdp/iter_4.pth').is_dir()


@pytest.mark.slow
def test_everything_together_and_resumed_by_another_kind(tmp_path, subprocess_environment):
    together = {
        'iterations': 4,
        'batch': 4,
        'is_validated': True,
        'hooks': [{'type': 'EMAHook', 'momentum': 0.1}],
    }
    options = [
        'precision=bf16',
        'accumulate=2',
        'model.backbone.with_cp=True',
        '+optim_wrapper.paramwise_cfg=dict(layer_decay_rate=0.8)',
        '+auto_scale_lr.enable=True',
        'param_scheduler.0.start_factor=1.0',
    ]
    whole_file, folder = tmp_path / 'ddp/iter_2.pth', tmp_path / 'fsdp/iter_2.pth'
    runs = [
        ('ddp', 'ddp', None),
        ('fsdp', 'dict(type=fsdp,checkpoint=sharded)', None),
        ('zero1', 'zero1', whole_file),
        ('sharded', 'dict(type=fsdp,init=sharded,checkpoint=sharded)', folder),
        ('fsdp from file', 'fsdp', whole_file),
    ]
    results = train(
        [
            settings(
                'classifier', tmp_path / name, *options, f'parallel={kind}',
                resume=resume and str(resume), **together,
            )
            for name, kind, resume in runs
        ],
        tmp_path, subprocess_environment,
    )  # fmt: skip
    ddp, fsdp, zero1, sharded, from_file = (ranks[0] for ranks in results)
    # 4 images, 2 processes, 2 iterations, for a batch of 64.
    assert ddp['lr'] == pytest.approx(1e-3 * 16 / 64)
    assert list(ddp['losses']) == ['1', '2', '3', '4'] and list(zero1['losses']) == ['3', '4']
    for other in (fsdp, zero1, sharded, from_file):
        assert other['lr'] == ddp['lr']
        # In bfloat16, a difference in the eighth digit of a weight may change the rounding.
        assert largest_difference(ddp['losses'], other['losses']) < 1e-3
        assert largest_difference(ddp['norms'], other['norms']) < 1e-2
    half = ddp['state_bytes'] / 2
    for ranks in (results[1], results[2], results[3]):
        # zero1 deals out whole parameters, group by group: those of layer decay are small.
        assert all(rank['state_bytes'] == pytest.approx(half, rel=0.1) for rank in ranks)

    # The averages are what is saved as the weights.
    expected = torch.load(tmp_path / 'ddp/iter_4.pth', weights_only=False)
    consolidate(tmp_path / 'sharded/iter_4.pth', tmp_path / 'out.safetensors')
    found, average = load_file(tmp_path / 'out.safetensors'), expected['state_dict']
    assert found.keys() == average.keys()
    trained = {name: expected['ema_state_dict'][f'module.{name}'] for name in average}
    assert distance(found, average) < 0.05 * distance(trained, average)
    whole = torch.load(tmp_path / 'fsdp from file/iter_4.pth', weights_only=False)
    one, other = (
        {f'{i}': state['exp_avg'] for i, state in checkpoint['optimizer']['state'].items()}
        for checkpoint in (expected, whole)
    )
    assert distance(one, other) < 0.05 * distance(one, {i: 0 * value for i, value in one.items()})


@pytest.mark.slow
@pytest.mark.parametrize('task', CONFIGS)
def test_two_processes_equal_one(task, tmp_path, subprocess_environment):
    ((one,),) = train(
        [settings(task, tmp_path / 'one', iterations=20, batch=4)],
        tmp_path / 'single', subprocess_environment, num_processes=0,
    )  # fmt: skip
    results = train(
        [
            settings(task, tmp_path / kind, f'parallel={kind}', iterations=20, batch=2)
            for kind in KINDS
        ],
        tmp_path, subprocess_environment,
    )  # fmt: skip
    print(f'\n{task}: one process, loss {one["losses"]["1"]:.6f} to {one["losses"]["20"]:.6f}')
    for kind, ranks in zip(KINDS, results, strict=True):
        worst = largest_difference(one['losses'], ranks[0]['losses'])
        sizes = [rank['state_bytes'] for rank in ranks]
        shown = ', '.join(f'{size:,}' for size in sizes)
        print(
            f'{kind:<10} loss {ranks[0]["losses"]["1"]:.6f} to {ranks[0]["losses"]["20"]:.6f}, '
            f'largest difference {worst:.1e}, state {shown} bytes'
        )
        assert len(ranks[0]['losses']) == 20 and worst < 1e-4
        assert largest_difference(one['norms'], ranks[0]['norms']) < 5e-3
        share = 1 if kind == 'ddp' else 0.5
        assert all(s == pytest.approx(share * one['state_bytes'], rel=0.02) for s in sizes)


@pytest.mark.slow
def test_sharded_draw_is_that_of_any_number_of_processes(tmp_path, subprocess_environment):
    """With half of the weights per process, and never the whole model in one."""
    option = 'parallel=dict(type=fsdp,init={},checkpoint=sharded)'
    large = 'model.backbone.arch=dict(embed_dim=128,depths=(2,2,18,2),num_heads=(4,8,16,32))'
    no_step = 'optim_wrapper.optimizer.lr=0.0'
    # Or glibc keeps the matrices of megabytes that are drawn whole and given up again.
    environment = {**subprocess_environment, 'MALLOC_MMAP_THRESHOLD_': '1000000'}
    runs = {}
    for init, num_processes in (('sharded', 1), ('sharded', 2), ('whole', 2)):
        name = f'{init} {num_processes}'
        one = settings(
            'classifier', tmp_path / name, option.format(init), large, no_step,
            'model.head.in_channels=1024', iterations=2, batch=1,
        )  # fmt: skip
        (ranks,) = train([one], tmp_path / f'job {name}', environment, num_processes=num_processes)
        weights = load_sharded(tmp_path / name / 'iter_2.pth', starts=['state_dict/'])
        runs[name] = max(rank['peak_bytes'] for rank in ranks), weights
    (_, alone), (peak, two), (whole_peak, _) = runs.values()
    assert alone.keys() == two.keys()
    assert all(torch.equal(alone[name], two[name]) for name in alone)
    num_bytes = sum(value.nbytes for value in two.values())
    print(f'\nweights {num_bytes:,} bytes; peak {peak:,} bytes, {whole_peak:,} drawn whole')
    assert whole_peak - peak > 0.3 * num_bytes


@pytest.mark.slow
def test_two_copies_of_two_shards_equal_one_process(tmp_path, subprocess_environment):
    ((one,),) = train(
        [settings('classifier', tmp_path / 'one', iterations=20, batch=4)],
        tmp_path / 'single', subprocess_environment, num_processes=0,
    )  # fmt: skip
    kind = 'parallel=dict(type=fsdp,init=whole,checkpoint=sharded,shards=2)'
    (ranks,) = train(
        [settings('classifier', tmp_path / 'four', kind, iterations=20, batch=1)],
        tmp_path, subprocess_environment, num_processes=4,
    )  # fmt: skip
    assert largest_difference(one['losses'], ranks[0]['losses']) < 1e-4
    half = one['state_bytes'] / 2
    assert all(rank['state_bytes'] == pytest.approx(half, rel=0.02) for rank in ranks)
    expected = torch.load(tmp_path / 'one/iter_20.pth', weights_only=False)['state_dict']
    name = 'head.fc.weight'
    found = load_sharded(tmp_path / 'four/iter_20.pth', starts=[f'state_dict/{name}'])
    torch.testing.assert_close(found[f'state_dict/{name}'], expected[name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_machines(tmp_path, subprocess_environment):
    """tools/dist_train.sh twice, as on two hosts."""
    run = settings('classifier', tmp_path / 'work', 'parallel=zero1', iterations=2, batch=2)
    nodes = []
    for rank in range(2):
        environment = {
            **subprocess_environment, 'PYTHON': sys.executable, 'NNODES': '2',
            'NODE_RANK': str(rank), 'MASTER_PORT': '29653',
        }  # fmt: skip
        command = [
            'tools/dist_train.sh', f'configs/{run["config"]}', '1', '--work-dir', run['work_dir'],
            '--cfg-options', *run['options'],
        ]  # fmt: skip
        nodes.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    for node in nodes:
        said, _ = node.communicate(timeout=300)
        assert node.returncode == 0, said[-3000:]
    assert (tmp_path / 'work/iter_2.pth').is_file()


@pytest.mark.parametrize(
    ('entries', 'launcher', 'message'),
    [
        ({'parallel': 'zero3'}, 'pytorch', 'zero3'),
        ({'parallel': {'type': 'fsdp', 'init': 'meta'}}, 'pytorch', 'init='),
        ({'parallel': {'type': 'fsdp', 'shards': 0}}, 'pytorch', 'shards=N'),
        ({'parallel': {'type': 'ddp', 'size': 2}}, 'pytorch', 'ddp'),
        ({'precision': 'fp8'}, 'none', 'bf16'),
        ({'precision': 'fp16'}, 'none', 'precision=bf16'),
        ({'accumulate': 0}, 'none', 'accumulate'),
        ({'parallel': 'deepspeed'}, 'pytorch', 'deepspeed'),
        ({'parallel': 'zero1', 'optim_wrapper.optimizer.type': 'Lion'}, 'pytorch', 'Lion'),
    ],
)
def test_what_does_not_go_is_refused(entries, launcher, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = Config({'launcher': launcher, 'optim_wrapper': {'optimizer': {'type': 'AdamW'}}})
    cfg.merge_from_dict(entries)
    with pytest.raises(UserError, match=message.replace('|', r'\|')):
        apply_parallel(cfg)


@pytest.mark.parametrize(
    'fragment',
    sorted((ROOT / 'configs/_base_/strategies').glob('*.py')),
    ids=lambda path: path.stem,
)
@pytest.mark.parametrize('task', CONFIGS)
def test_fragments_go_on_top_of_any_recipe(task, fragment, tmp_path):
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(f'_base_ = [{str(ROOT / "configs" / CONFIGS[task])!r}, {str(fragment)!r}]\n')
    (option,) = Config.fromfile(fragment).to_dict().items()
    by_base = load_config(str(leaf))
    by_option = load_config(str(ROOT / 'configs' / CONFIGS[task]))
    by_option.merge_from_dict(dict([option]))
    for cfg in (by_base, by_option):
        cfg.launcher = 'pytorch'
        apply_parallel(cfg)
    assert by_base.to_dict() == by_option.to_dict()
    plain = load_config(str(ROOT / 'configs' / CONFIGS[task])).to_dict()
    assert by_base.to_dict() != {**plain, 'launcher': 'pytorch', 'parallel': {'type': 'ddp'}} or (
        fragment.stem == 'ddp'
    )


def test_one_process_has_nothing_to_spread(use_data, tmp_path, tool):
    run = settings('classifier', tmp_path, 'parallel=fsdp', iterations=2, batch=2)
    status, error = tool(
        'train',
        f'configs/{run["config"]}',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *run['options'],
    )
    assert status == 1 and 'tools/dist_train.sh' in error


@pytest.fixture
def folder(tmp_path):
    weights = {'state_dict/fc.weight': torch.randn(3, 4), 'optimizer/0/step': torch.ones(1)}
    save_sharded(tmp_path / 'iter_1.pth', weights)
    return tmp_path / 'iter_1.pth'


def test_sharded_checkpoint_is_joined(folder, tmp_path, tool):
    status, _ = tool('checkpoint', 'consolidate', folder, tmp_path / 'out.safetensors')
    assert status == 0 and '1 tensors' in tool.printed
    expected = load_sharded(folder)['state_dict/fc.weight']
    assert torch.equal(load_file(tmp_path / 'out.safetensors')['fc.weight'], expected)
    for place, out, message in (
        (tmp_path, 'a.safetensors', 'sharded'),
        (folder, 'a.pth', 'safetensors'),
    ):
        status, error = tool('checkpoint', 'consolidate', place, tmp_path / out)
        assert status == 1 and message in error
    status, error = tool('checkpoint', 'inspect', folder)
    assert status == 1 and 'consolidate' in error


def test_a_sharded_checkpoint_of_another_python_is_read(module_of_paths, folder):
    assert module_of_paths.encode() in (folder / '.metadata').read_bytes()
    assert set(load_sharded(folder)) == {'state_dict/fc.weight', 'optimizer/0/step'}


class _Code:
    def __reduce__(self):
        return exec, ('raise SystemExit("code was run")',)


def test_sharded_checkpoint_runs_no_code_and_stays_in_its_folder(folder):
    index = sharded_files._Reader(folder).read_metadata()
    place = next(iter(index.storage_data.values()))
    for change, message in (
        ({'planner_data': _Code()}, 'run code'),
        ({'state_dict_metadata': {'a': sharded_files.metadata.BytesStorageMetadata()}}, 'run code'),
        ({'storage_data': {'a': type(place)('../x', 0, 1)}}, 'leads to'),
    ):
        (folder / '.metadata').write_bytes(pickle.dumps(_changed(index, change)))
        with pytest.raises(CheckpointError, match=message):
            load_sharded(folder)
    (folder / '.metadata').write_bytes(pickle.dumps(index))
    (folder / '__0_0.distcp').unlink()
    with pytest.raises(CheckpointError, match='damaged'):
        load_sharded(folder)


def _changed(index, change):
    copy = pickle.loads(pickle.dumps(index))
    for name, value in change.items():
        setattr(copy, name, value)
    return copy


@pytest.mark.parametrize(('status', 'is_requeued'), [(0, False), (75, True), (1, False)])
def test_slurm_job_goes_back_into_the_queue(status, is_requeued, tmp_path):
    for name, body in {
        'srun': f'exit {status}',
        'scontrol': '',
        # Slurm runs a copy of the script, which is the first argument that is no option.
        'sbatch': (
            'while [[ "$1" == --* ]]; do shift; done\n'
            f'cp "$1" {tmp_path}/slurm_script; shift\n'
            f'SLURM_JOB_ID=7 exec {tmp_path}/slurm_script "$@"'
        ),
    }.items():
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/log\n{body}\n')
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ['tools/slurm_requeue.sh', 'gpu', 'job', 'a config.py', '--cfg-options', 'parallel=zero1'],
        cwd=ROOT, env={'PATH': f'{tmp_path}:/usr/bin:/bin', 'GPUS': '16'},
        capture_output=True, text=True,
    )  # fmt: skip
    log = (tmp_path / 'log').read_text()
    assert '--ntasks=16 --ntasks-per-node=8' in log and '--signal=USR1@120' in log, done.stderr
    assert f'{ROOT}/tools/train.py a config.py --cfg-options parallel=zero1 --resume' in log
    assert ('scontrol requeue 7' in log) == is_requeued
    assert done.returncode == (0 if is_requeued else status)
