"""Private names of other packages: all in two modules, and all there."""

import ast
import importlib
from pathlib import Path

import pytest
import torchvision  # noqa: F401  registers torch.ops.torchvision

PACKAGE = Path(__file__).parents[1] / 'swinv2_mm'
# Each lists owners and names in ``PRIVATE_NAMES``.
MODULES = ('swinv2_mm.core.torch_private',)
HOLDERS = {PACKAGE / 'core/torch_private.py'}


def listed():
    return [pair for name in MODULES for pair in importlib.import_module(name).PRIVATE_NAMES]


@pytest.mark.parametrize(('owner', 'name'), listed(), ids=lambda x: x if type(x) is str else '')
def test_private_name_exists(owner, name):
    if isinstance(owner, str):
        owner = importlib.import_module(owner)
    assert hasattr(owner, name)


def is_private(name: str) -> bool:
    return any(part.startswith('_') and not part.startswith('__') for part in name.split('.'))


def reaches_into_torch(source: str) -> list[str]:
    """Private names of torch in imports, and in chains of attributes that start at a module."""
    found, modules = [], {'torch', 'torchvision'}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] in modules:
            found += [f'{node.module}.{alias.name}' for alias in node.names]
            # What is imported may be a module too.
            modules |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [name for name in names if name.split('.')[0] in modules]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node)
            if chain.split('.')[0] in modules:
                found.append(chain)
    return sorted(filter(is_private, found))


def test_finds_reaches_into_torch():
    source = """
import torch._dynamo
from torch import nn
from torch.utils._pytree import tree_map
from torch.distributed import distributed_c10d as c10d
from torch.nn import _reduction
torch._foo(nn.modules.batchnorm._BatchNorm, torch.__version__, own._private)
c10d._set_pg_timeout()
"""
    assert reaches_into_torch(source) == [
        'c10d._set_pg_timeout',
        'nn.modules.batchnorm._BatchNorm',
        'torch._dynamo',
        'torch._foo',
        'torch.nn._reduction',
        'torch.utils._pytree.tree_map',
    ]


def test_no_other_module_reaches_into_torch():
    found = {
        str(path.relative_to(PACKAGE)): reaches
        for path in sorted(PACKAGE.rglob('*.py'))
        if path not in HOLDERS and (reaches := reaches_into_torch(path.read_text()))
    }
    assert not found
