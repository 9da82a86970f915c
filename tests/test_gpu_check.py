"""The check of a GPU runs to its end on a CPU, and reports what raises, is wrong or late."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

import swinv2_mm.cli
from swinv2_mm.analysis import gpu_check
from swinv2_mm.core.attention import BACKENDS
from swinv2_mm.core.attention.eager import eager
from swinv2_mm.errors import UserError


def test_runs_to_the_end(tmp_path, monkeypatch):
    def wrong(qkv, grid, logit_scale, bias):
        return eager(qkv, grid, logit_scale, 0 * bias)

    def broken(*operands):
        raise RuntimeError('no kernel image\nsecond line')

    monkeypatch.setitem(BACKENDS, 'wrong', wrong)
    monkeypatch.setitem(BACKENDS, 'broken', broken)
    out = tmp_path / 'gpu.json'
    rows = swinv2_mm.cli.gpu_check(device='cpu', out=out)
    report = json.loads(out.read_text())
    assert report['machine']['torch'] == torch.__version__
    assert [row['name'] for row in report['rows']] == [row.name for row in rows]
    found = {(row.check, row.name): row for row in rows}
    # Every backend in every type; each check once.
    assert len(rows) == 3 * len(BACKENDS) + 3 + 2
    good = found['attention', 'sdpa']
    assert not good.is_wrong and good.figures['ms_step'] > 0
    assert good.figures['error'] < good.figures['error_gradients'] < 1e-2
    assert found['attention', 'wrong'].is_wrong
    assert found['attention', 'broken'].note == 'RuntimeError: no kernel image'
    assert {row.name for row in rows if row.is_wrong} == {'wrong', 'broken'}
    assert found['attention', 'triton'].note.startswith('Triton')
    for name in ('auto', 'timm'):
        assert found['backbone', name].figures.keys() == {'ms_inference', 'ms_step'}
    assert found['CUDA graph', 'auto'].note == 'needs CUDA'


def test_what_the_time_does_not_reach():
    rows = list(gpu_check.run_checks(torch.device('cpu'), seconds=-1))
    assert {row.note for row in rows} == {'not reached in the time'}


@pytest.mark.parametrize('options', [{'device': 'tpu'}, {'device': 'cpu', 'minutes': 0}], ids=str)
def test_mistakes(options):
    with pytest.raises(UserError, match='--'):
        swinv2_mm.cli.gpu_check(**options)


@pytest.mark.slow
def test_the_tool_prints_a_table():
    command = [sys.executable, 'tools/gpu_check.py', '--device', 'cpu']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ('ms inference', 'sequential', 'timm', 'synchronization'):
        assert word in done.stdout
