"""The tools and interfaces of mmdet, mmsegmentation and mmpretrain on what our training makes.

``python tests/peer_tools.py FOLDER`` trains three small models by our command, tries every tool on
them and writes the table of ``docs/library_tools.md``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import runpy
import shlex
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / 'docs/library_tools.md'
sys.path.insert(0, str(ROOT))

from swinv2_mm.config.peer_inferencers import config_for_inferencers  # noqa: E402
from swinv2_mm.ops import ensure_ops  # noqa: E402

CONFIGS = {
    'mmdet': 'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
    'mmseg': 'segmentation/upernet_swinv2-nano-w8_digits.py',
    'mmpretrain': 'classification/swinv2-nano-w8_digits.py',
}
SECONDS = 600


class Tool(NamedTuple):
    """A thing to try.

    Attributes:
        title: What it is.
        command: Command line, with CONFIG, CKPT, LOG, PREDICTIONS, IMAGE and OUT for files.
        python: Code instead of a command.
        makes: What the output holds, as a pattern; '' for files in OUT.
        needs: Package that it imports and that the requirements do not have.
        note: What there is to say.
    """

    title: str
    command: str = ''
    python: str = ''
    makes: str = ''
    needs: str = ''
    note: str = ''


RUN = 'python -m swinv2_mm.ops '
INFERENCE = """
import swinv2_mm.models
from swinv2_mm.config.peer_inferencers import config_for_inferencers
cfg = config_for_inferencers('CONFIG')
"""


def _tools() -> dict[str, tuple[Tool, ...]]:
    libraries = yaml.safe_load(Path(__file__).with_suffix('.yml').read_text())
    return {library: tuple(Tool(**tool) for tool in tools) for library, tools in libraries.items()}


TOOLS = _tools()


def prepare(folder: Path) -> None:
    """Make the data set and train one model per library by our command."""
    from projects.digits.dataset import make_digits_on_photos
    from swinv2_mm.cli import train

    make_digits_on_photos(
        folder / 'data/digits', num_train=4, num_val=2, num_train_crops_per_class=2,
        num_val_crops_per_class=1, progress=False,
    )  # fmt: skip
    os.environ['SWINV2_DATA'] = str(folder / 'data')
    for library, name in CONFIGS.items():
        train(
            ROOT / 'configs' / name,
            work_dir=folder / library,
            options=[
                'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                'train_dataloader.batch_size=2', 'default_hooks.checkpoint.interval=2',
                'default_hooks.logger.interval=1',
                'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
                'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
                'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
            ],
        )  # fmt: skip


def adapted(folder: Path, library: str) -> Path:
    """A config whose transforms have the names of the library's own."""
    file = folder / f'{library}_adapted.py'
    if not file.is_file():
        config_for_inferencers(next((folder / library).glob('*.py'))).dump(file)
    return file


def places(folder: Path, library: str, out: Path) -> dict[str, str]:
    work_dir = folder / library
    log = next(work_dir.glob('*/vis_data/scalars.json'), work_dir / 'no log')
    return {
        'CONFIG': str(next(work_dir.glob('*.py'))),
        'ADAPTED': str(adapted(folder, library)),
        'CKPT': str(next(work_dir.glob('iter_*.pth'))),
        'LOG': str(log),
        'PREDICTIONS': str(folder / f'{library}.pkl'),
        'LABEL_MAPS': str(folder / 'label_maps'),
        'IMAGE': str(next((folder / 'data/digits/images/val').iterdir())),
        'FOLDER': str(folder / 'data/digits/images/train'),
        'OUT': str(out),
    }


def _run(command: str, folder: Path, output: Path) -> None:
    """Run in a child process that has the library imported."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.stdout.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    status = 0
    try:
        if '\n' in command:
            exec(command, {'__name__': '__main__'})
        else:
            words = shlex.split(command)
            while '=' in words[0]:
                key, _, setting = words.pop(0).partition('=')
                os.environ[key] = setting
            sys.argv[:] = words[2:]  # behind python -m
            runpy.run_module('swinv2_mm.ops', run_name='__main__')
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status or 0))


def attempt(tool: Tool, library: str, folder: Path) -> str:
    """Return '' where it works, else what it said last."""
    out = folder / 'out' / f'{library}-{re.sub(r"[^a-z_]+", "-", tool.title.lower())}'
    out.mkdir(parents=True, exist_ok=True)
    command = INFERENCE + tool.python if tool.python else tool.command
    for word, path in places(folder, library, out).items():
        command = re.sub(rf'\b{word}\b', path, command)
    os.environ['SWINV2_DATA'] = str(folder / 'data')
    output = out / 'output.txt'
    child = multiprocessing.get_context('fork').Process(target=_run, args=(command, folder, output))
    child.start()
    child.join(SECONDS)
    if child.is_alive():
        child.kill()
        return f'not done in {SECONDS} s'
    text = output.read_text()
    if child.exitcode:
        return (text.strip().splitlines() or ['no message'])[-1]
    if tool.makes:
        if not re.search(tool.makes, text):
            return f'its output has no {tool.makes}'
    elif not [path for path in out.rglob('*') if path.is_file() and path.name != 'output.txt']:
        return 'it writes nothing'
    return ''


def table(library: str, found: Mapping[str, str]) -> list[str]:
    lines = ['| | works | command, or what to import | |', '|---|---|---|---|']
    for tool in TOOLS[library]:
        error = found[f'{library}/{tool.title}']
        command = tool.command.replace(RUN, '') or next(
            line for line in tool.python.splitlines() if f'from {library}' in line
        )
        needs = f'needs `{tool.needs}`' if tool.needs else ''
        remark = '; '.join(filter(None, (needs, tool.note or error)))
        cells = [tool.title, 'no' if error else 'yes', f'`{command}`', remark]
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def rows_of_document(library: str) -> dict[str, bool]:
    """Titles of the rows, and whether the document says that the tool works."""
    text = DOCUMENT.read_text().split(f'<!-- table: {library} -->\n')[1]
    lines = text.split('<!-- end of table -->')[0].splitlines()[2:]
    cells = [line.strip('| ').split(' | ') for line in lines]
    return {row[0]: row[1] == 'yes' for row in cells}


def write(found: Mapping[str, str]) -> None:
    text = DOCUMENT.read_text()
    for library in TOOLS:
        head, rest = text.split(f'<!-- table: {library} -->\n')
        rest = rest[rest.index('<!-- end of table -->') :]
        lines = [f'<!-- table: {library} -->', *table(library, found), rest]
        text = head + '\n'.join(lines)
    DOCUMENT.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('library', choices=TOOLS)
    parser.add_argument('--only', nargs='*', default=[], help='titles')
    parser.add_argument('--write', action='store_true')
    args = parser.parse_args()
    folder = args.folder.resolve()
    if not (folder / 'mmpretrain').is_dir():
        prepare(folder)
    results = folder / 'results.json'
    found = json.loads(results.read_text()) if results.is_file() else {}
    if args.write:
        write(found)
        return
    os.environ['MPLBACKEND'] = 'agg'
    ensure_ops()
    __import__(f'{args.library}.apis')
    for tool in TOOLS[args.library]:
        name = f'{args.library}/{tool.title}'
        if (args.only and tool.title not in args.only) or (not args.only and name in found):
            continue
        started = time.monotonic()
        found[name] = attempt(tool, args.library, folder)
        print(f'{name:40} {time.monotonic() - started:4.0f} s {found[name] or "works"}', flush=True)
        results.write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
