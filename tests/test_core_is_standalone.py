"""The core needs torch and the standard library, and the package itself nothing at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / 'swinv2_mm' / 'core'
CHECKPOINT = ROOT / 'swinv2_mm' / 'checkpoint'

BLOCKED = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmcls', 'timm', 'torchvision',
           'transformers', 'safetensors', 'einops', 'scipy')  # fmt: skip

BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {BLOCKED}:
            raise ImportError(f'{{name}} is blocked')

sys.meta_path.insert(0, Blocker())
for name in {BLOCKED}:
    try:
        __import__(name)
    except ImportError as error:
        assert 'is blocked' in str(error)
    else:
        raise AssertionError(f'{{name}} is not blocked')
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_core_works_without_any_other_package():
    code = """
import torch
from swinv2_mm.core import SwinTransformerV2

arch = dict(embed_dim=8, depths=(2, 2), num_heads=(1, 2))
for kind in ('log_cpb', 'table'):
    model = SwinTransformerV2(arch, window_size=4, position_bias=kind, out_indices=(0, 1))
    outs = model(torch.randn(1, 3, 33, 50))
    sum(out.sum() for out in outs).backward()
    assert all(p.grad is not None for p in model.parameters())
    model.load_state_dict(model.state_dict())
    print([tuple(out.shape) for out in outs])
"""
    assert run(BLOCK + code).splitlines() == ['[(1, 8, 9, 13), (1, 16, 5, 7)]'] * 2


def test_importing_the_package_loads_nothing():
    code = """
import sys
before = set(sys.modules)
import swinv2_mm
assert swinv2_mm.__version__
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names)))
"""
    assert run(code) == "['swinv2_mm']"


def test_importing_the_core_loads_no_openmmlab_library():
    code = f"""
import sys
import swinv2_mm.core
print([name for name in {BLOCKED} if name in sys.modules])
"""
    assert run(code) == '[]'


@pytest.mark.parametrize('path', sorted(CORE.rglob('*.py')), ids=lambda path: path.name)
def test_core_imports_torch_the_standard_library_and_itself(path):
    """Also where an import hides in a function or a branch."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(CORE).parts)
            assert node.level <= depth, f'line {node.lineno} reaches out of the core'
    assert imported_by(path) <= {'torch', 'triton'}


@pytest.mark.parametrize('path', sorted(CHECKPOINT.rglob('*.py')), ids=lambda path: path.name)
def test_checkpoints_need_torch_and_safetensors(path):
    assert imported_by(path) <= {'torch', 'safetensors', 'swinv2_mm'}


def imported_by(path: Path) -> set[str]:
    """Return the packages that a file imports, without those of the standard library."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition('.')[0])
    return names - set(sys.stdlib_module_names)
