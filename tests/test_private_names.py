"""Private names of other packages: all in two modules, and all there."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from mmengine.hooks import Hook

import swinv2_mm.models  # noqa: F401
from swinv2_mm.core.torch_private import SINCE
from swinv2_mm.errors import UserError

PACKAGE = Path(__file__).parents[1] / 'swinv2_mm'
# Each lists owners and names in ``PRIVATE_NAMES``.
MODULES = ('swinv2_mm.core.torch_private', 'swinv2_mm.mmengine_private')
# The types of its parsers have no public names; numpy's name is in every pickle of an array.
STANDARD = {'argparse', 'os', 'np', 'np._core.multiarray'}
ALLOWED = {'_asdict', '_replace'}
HOLDERS = {PACKAGE.parent / f'{name.replace(".", "/")}.py' for name in MODULES}


def listed():
    return [pair for name in MODULES for pair in importlib.import_module(name).PRIVATE_NAMES]


@pytest.mark.parametrize(('owner', 'name'), listed(), ids=lambda x: x if type(x) is str else '')
def test_private_name_exists(owner, name):
    if torch.__version__ < SINCE.get(name, '0'):
        pytest.skip(f'torch {SINCE[name]} has it')
    if isinstance(owner, str):
        owner = pkgutil.resolve_name(owner)
    # What an instance has, its class sets.
    assert hasattr(owner, name) or f'self.{name}' in source(owner)


def source(cls: type) -> str:
    """The text of a class and those of its bases that are written in Python."""
    texts = []
    for base in cls.__mro__:
        try:
            texts.append(inspect.getsource(base))
        except (OSError, TypeError):
            pass
    return '\n'.join(texts)


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


def reaches_into_objects(source: str) -> list[str]:
    """Private attributes of objects that are not of a class of the same module."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            own |= {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
        elif isinstance(node, ast.AnnAssign):
            own.add(getattr(node.target, 'attr', getattr(node.target, 'id', None)))
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr)
        if ast.unparse(node.value) not in ('self', 'cls', 'super()')
        if node.attr not in own | ALLOWED and ast.unparse(node.value) not in STANDARD
    ]


def test_finds_reaches_into_objects():
    source = """
class Hook:
    def _own(self, other, runner):
        self._count = other._own()
        return other._count, runner._resume, self._inherited
"""
    assert reaches_into_objects(source) == ['runner._resume']


def test_no_other_module_reaches_into_objects():
    found = {
        str(path.relative_to(PACKAGE)): reaches
        for path in sorted(PACKAGE.rglob('*.py'))
        if path not in HOLDERS and (reaches := reaches_into_objects(path.read_text()))
    }
    assert not found


def own_classes():
    """Classes of this package that have a base of another."""
    for info in pkgutil.walk_packages([str(PACKAGE)], 'swinv2_mm.'):
        if info.name.endswith('__main__'):
            continue
        try:
            module = importlib.import_module(info.name)
        except (ModuleNotFoundError, UserError) as error:
            # Of an extra that is not installed.
            assert isinstance(error, UserError) or not error.name.startswith('swinv2_mm'), error
            continue
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == info.name:
                bases = [b for b in cls.__mro__[1:] if not b.__module__.startswith('swinv2_mm')]
                if any(base is not object for base in bases):
                    yield cls, bases


def overridden(cls: type) -> set[str]:
    """Methods that a class takes to be its base's: those it extends, and the points of a hook."""
    methods = {name: value for name, value in vars(cls).items() if inspect.isfunction(value)}
    code = textwrap.dedent(inspect.getsource(cls))
    extended = set(re.findall(r'super\(\)\.(\w+)', code))
    points = {name for name in methods if name.startswith(('before_', 'after_'))}
    return extended | (points if issubclass(cls, Hook) else set())


def test_what_is_overridden_is_in_the_base_class():
    checked, lacking = 0, []
    for cls, bases in own_classes():
        ours = [b for b in cls.__mro__[1:] if b not in bases]
        for name in overridden(cls):
            checked += 1
            known = any(hasattr(base, name) for base in [*bases, *ours])
            if not known and not any(f'self.{name}' in source(base) for base in bases):
                lacking.append(f'{cls.__qualname__}.{name}')
    assert checked > 50 and not lacking


def patches(source: str) -> list[str]:
    """Assignments to what another package has, outside of context managers."""
    tree = ast.parse(source)
    foreign = {
        (alias.asname or alias.name).split('.')[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and not (getattr(node, 'level', 0) or str(getattr(node, 'module', '')).startswith('swinv2'))
        for alias in node.names
    }
    within = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any('contextmanager' in ast.unparse(d) for d in node.decorator_list)
        for inner in ast.walk(node)
    }
    return [
        ast.unparse(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and id(node) not in within
        for target in node.targets
        if isinstance(target, ast.Attribute) and ast.unparse(target).split('.')[0] in foreign
    ]


def test_finds_patches():
    source = """
import torch
from contextlib import contextmanager
torch.nn.Linear.forward = None
@contextmanager
def patched():
    torch.nn.Linear.forward = None
"""
    assert patches(source) == ['torch.nn.Linear.forward']


def test_other_packages_are_patched_by_context_managers():
    """The command line's own and a stand-in for a missing module are none.

    Pillow's limit of pixels has no other place; threads that decode share it.
    """
    allowed = {
        'sys.argv',
        "sys.modules['mmcv']._ext",
        'sys.modules[NAME].__path__',
        'Image.MAX_IMAGE_PIXELS',
    }
    found = {
        str(path.relative_to(PACKAGE)): left
        for path in sorted(PACKAGE.rglob('*.py'))
        if (left := set(patches(path.read_text())) - allowed)
    }
    assert not found
