# PYTHON_ARGCOMPLETE_OK
"""Write docs/api.md from the docstrings of what the package offers to users."""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import new_parser, parse

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/analysis/api_page.py
        python tools/analysis/api_page.py --check
        """,
    )
    parser.add_argument('--check', action='store_true', help='change nothing, fail if out of date')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from mmengine import registry

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError

PAGE = ROOT / 'docs' / 'api.md'
# What is documented: all of `__all__`, or the names that are given.
MODULES: dict[str, tuple[str, ...] | None] = {
    'swinv2_mm.core': None,
    'swinv2_mm.models': None,
    'swinv2_mm.checkpoint': None,
    'swinv2_mm.inference': None,
    'swinv2_mm.engine': None,
    'swinv2_mm.ops': None,
    'swinv2_mm.engine.prediction_file': ('read_predictions',),
}
HEADER = """# API

Written by `python tools/analysis/api_page.py` from the docstrings; change those, not this page.
Shapes: B images, H W map in tokens, C channels.
"""


def as_markdown(docstring: str) -> str:
    """Turn a Google docstring into Markdown: sections into lists, shapes into text blocks."""
    out, section = [], None
    for line in inspect.cleandoc(docstring).splitlines():
        line = re.sub(r':\w+:`([^`]*)`', r'`\1`', line).replace('``', '`')
        if found := re.fullmatch(r'(Args|Attributes|Raises|Returns|Yields|Shapes):', line):
            section = found[1]
            out += [f'**{section}**', '']
            out += ['```text'] if section == 'Shapes' else []
        elif section and line and not line.startswith(' '):
            out += ['```', ''] if section == 'Shapes' else ['']
            section = None
            out.append(line)
        elif section == 'Shapes' and not line:
            out += ['```', '']
            section = None
        elif section in ('Args', 'Attributes', 'Raises'):
            item = re.fullmatch(r' {4}(\w+): (.*)', line)
            out.append(f'- `{item[1]}`: {item[2]}' if item else f'  {line.strip()}'.rstrip())
        else:
            out.append(line[4:] if section else line)
    return '\n'.join([*out, '```'] if section == 'Shapes' else out).rstrip()


def described(name: str, value: Any) -> Iterator[str]:
    """Yield the paragraphs of one public name."""
    yield f'### `{name}`'
    if not callable(value):
        keys = ', '.join(f'`{key}`' for key in value)
        yield f'A table with {keys}.'
        return
    is_class = inspect.isclass(value)
    if not (is_class and issubclass(value, Exception)):
        yield f'```text\n{name}{signature(value)}\n```'
    yield as_markdown(inspect.getdoc(value))
    if not is_class:
        return
    for key, member in vars(value).items():
        is_public = not key.startswith('_') or key == '__call__'
        if is_public and isinstance(member, property):
            yield f'#### `{name}.{key}`\n\n{as_markdown(member.__doc__)}'
        elif is_public and inspect.isfunction(member) and member.__doc__:
            call = name if key == '__call__' else f'{name}.{key}'
            yield f'#### `{name}.{key}`\n\n```text\n{call}{signature(member)}\n```'
            yield as_markdown(member.__doc__)


def signature(value: Any) -> str:
    """Return the arguments without annotations, as a caller writes them."""
    found = inspect.signature(value)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in found.parameters.items()
        if name != 'self'
    ]
    empty = inspect.Signature.empty
    return str(found.replace(parameters=parameters, return_annotation=empty))


def registered() -> dict[str, tuple[str, type]]:
    """Return what of this package configs can name: the registry and the class of each name."""
    for path in sorted((ROOT / 'swinv2_mm').rglob('*.py')):
        if '.register_module(' in path.read_text(encoding='utf-8'):
            importlib.import_module('.'.join(path.relative_to(ROOT).with_suffix('').parts))
    return {
        name: (key, found)
        for key, root in vars(registry).items()
        if isinstance(root, registry.Registry)
        for name, found in root.module_dict.items()
        if found.__module__.startswith('swinv2_mm')
    }


def page() -> str:
    """Build the whole page."""
    parts = [HEADER.rstrip()]
    for module_name, names in MODULES.items():
        module = importlib.import_module(module_name)
        parts += [f'## `{module_name}`', as_markdown(module.__doc__)]
        for name in sorted(names or module.__all__):
            parts += described(name, getattr(module, name))
    parts += ['## Names for configs', 'Registered by `import swinv2_mm.models`, or by the module.']
    rows = ['| `type` | registry | module | |', '|---|---|---|---|']
    for name, (key, found) in sorted(registered().items()):
        summary = inspect.getdoc(found).split('\n\n')[0].replace('\n', ' ').replace('``', '`')
        rows.append(f'| `{name}` | `{key}` | `{found.__module__}` | {summary} |')
    return '\n\n'.join([*parts, '\n'.join(rows)]) + '\n'


def main() -> None:
    """Write, or check."""
    args = parse_args()
    text = page()
    if not args.check:
        PAGE.write_text(text, encoding='utf-8')
    elif not PAGE.exists() or text != PAGE.read_text(encoding='utf-8'):
        raise UserError(f'{PAGE.name} is out of date; run tools/analysis/api_page.py')
    print(f'{PAGE}: {len(text.splitlines())} lines')


if __name__ == '__main__':
    run_tool(main)
