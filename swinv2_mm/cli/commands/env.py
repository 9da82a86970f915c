"""Report what is installed, what works, and what is missing with the pip line for it.

The text belongs into a bug report. Exit status 1 if no library for a task works.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import swinv2_mm
import swinv2_mm.runtime
from swinv2_mm.cli.arguments import new_parser, parse
from swinv2_mm.errors import one_line
from swinv2_mm.installed import PARTS, installed, pip_line
from swinv2_mm.libraries import LIBRARIES

# Versions that the tests have been run with; pip refuses older ones.
_OLDEST, _NEWEST = (3, 10), (3, 14)
_LABEL_WIDTH = 22
_PACKAGES = ('torchvision', 'mmengine', 'mmcv', 'numpy', 'timm', 'transformers')


@dataclass(frozen=True)
class Part:
    """One thing that the package can do.

    Attributes:
        purpose: What it is for.
        modules: What it imports.
        line: What pip installs them by.
        problem: Why it does not work; empty if it does.
        is_missing: Whether a module is not installed, as opposed to one that does not import.
    """

    purpose: str
    modules: tuple[str, ...]
    line: str
    problem: str = ''
    is_missing: bool = False

    def __str__(self) -> str:
        if not self.problem:
            text = ', '.join(map(installed, self.modules))
        elif self.is_missing:
            text = f'{self.problem}: {self.line}'
        else:
            text = self.problem
        return f'  {self.purpose:<{_LABEL_WIDTH}}{text}'


@dataclass(frozen=True)
class Environment:
    """What is installed and works; prints as the report of the command."""

    head: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]

    @property
    def can_train(self) -> bool:
        """Whether the library of any task works."""
        tasks = {library.task for library in LIBRARIES.values()}
        return any(part.purpose in tasks and not part.problem for part in self.parts)

    def __str__(self) -> str:
        lines = [f'{label:<{_LABEL_WIDTH + 2}}{text}' for label, text in self.head]
        groups = {
            'works': [part for part in self.parts if not part.problem],
            'installed, but does not work': [
                part for part in self.parts if part.problem and not part.is_missing
            ],
            'missing': [part for part in self.parts if part.is_missing],
        }
        for title, parts in groups.items():
            if parts:
                lines += ['', f'{title}:', *map(str, parts)]
        return '\n'.join(lines)


def env() -> Environment:
    """Look at what is installed, by importing it.

    Returns:
        What was found; it prints as the report of the command.
    """
    ops = _ops()
    tasks = [(library.task, (library.scope,)) for library in LIBRARIES.values()]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        parts = tuple(_part(*part[:2]) for part in (*tasks, *PARTS))
    head = (
        (f'swinv2_mm {swinv2_mm.__version__}', str(Path(swinv2_mm.__file__).parent)),
        (f'Python {platform.python_version()}', _machine()),
        (installed('torch'), _devices()),
        ('packages', ', '.join(map(installed, _PACKAGES))),
        ('compiled ops of mmcv', ops),
    )
    return Environment(head, parts)


def _part(purpose: str, modules: tuple[str, ...]) -> Part:
    line = pip_line(modules[0]) or ''
    for module in modules:
        try:
            import_module(module)
            if module in LIBRARIES:  # it may import although its models do not
                import_module(f'{module}.models')
        except ModuleNotFoundError as error:
            is_own = (error.name or '').partition('.')[0] == module
            text = f'no {module}' if is_own else f'{module}: {error}'
            return Part(purpose, modules, line, text, is_missing=True)
        except Exception as error:
            text = f'{installed(module)}: {type(error).__name__}: {one_line(error)}'
            return Part(purpose, modules, line, text)
    return Part(purpose, modules, line)


def _ops() -> str:
    try:
        import swinv2_mm.models  # noqa: F401
        from swinv2_mm.ops.stand_in import StandIn
    except Exception as error:
        return f'not known: {type(error).__name__}: {error}'
    extension = sys.modules.get('mmcv._ext')
    if extension is None:
        return 'no mmcv'
    if isinstance(extension, StandIn):
        # mmcv may be built without compiled ops, under the same name.
        return 'none (mmcv-lite, or built without); torchvision and torch stand in'
    return 'yes'


def _machine() -> str:
    text = f'{platform.platform()}, {os.cpu_count()} cores'
    if not _OLDEST <= sys.version_info[:2] <= _NEWEST:
        known = '{}.{} to {}.{}'.format(*_OLDEST, *_NEWEST)
        text += f' (tested with Python {known})'
    return text


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return f'no GPU{f", built for CUDA {torch.version.cuda}" if torch.version.cuda else ""}'
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f'CUDA {torch.version.cuda}, {", ".join(names)}'


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    return new_parser(__doc__, examples='%(prog)s')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: without ``run_tool``, which needs what may be missing."""
    parse(build_parser(), argv)
    found = env()
    print(found)
    if not found.can_train:
        sys.exit(1)
