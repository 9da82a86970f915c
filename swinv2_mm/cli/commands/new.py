"""Write a config for your own data, from a look at the data: a leaf of about ten lines."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from swinv2_mm.cli.arguments import FOLDERS, call, command_line, new_parser, run_command
from swinv2_mm.errors import UserError

TASKS = ('detection', 'segmentation', 'classification')


def new(
    task: str,
    *,
    data: str | Path,
    out: str | Path | None = None,
    recipe: str | None = None,
    small: bool = False,
) -> Path:
    """Write a leaf for a data set.

    Args:
        task: ``detection`` (COCO files), ``segmentation`` (images and label maps) or
            ``classification`` (one folder per class).
        data: Folder of the data set.
        out: File to write; default the name of the folder, in the current one.
        recipe: Recipe to build on, such as ``detection/dino-4scale_swinv2-t-w16_8xb2-12e_coco.py``;
            default one with SwinV2-T and released weights.
        small: Whether to build on a recipe with a narrow model, from scratch, for a CPU.

    Returns:
        The file.

    Raises:
        UserError: If the data has no known layout, or the file exists.
    """
    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.atomic_write import atomic_write
    from swinv2_mm.config.file import load_config
    from swinv2_mm.data_check.discovery import DISCOVERIES
    from swinv2_mm.data_check.leaf import RECIPES, SMALL_RECIPES, leaf_text
    from swinv2_mm.shipped import recipe as path_of

    if task not in DISCOVERIES:
        raise UserError(f"'{task}' is no task; there are {', '.join(DISCOVERIES)}")
    root = Path(data)
    if not root.is_dir():
        raise UserError(f'--data {root} is not a folder')
    out = Path(out or f'{_absolute(root).name}.py')
    if out.suffix != '.py':
        raise UserError(f'--out {out}: commands read a config from a file that ends in .py')
    if out.exists():
        raise UserError(f'{out} exists; name another file with --out')
    layout = DISCOVERIES[task](root)
    kind = 'boxes' if task == 'detection' and not layout.has_masks else task
    recipe = recipe or (SMALL_RECIPES if small else RECIPES)[kind]
    text = leaf_text(
        task,
        layout,
        load_config(path_of(recipe)),
        recipe=recipe,
        name=str(out),
        root=_from_folder_of(out, root),
    )
    atomic_write(out, text)
    print(f'{out}:\n\n{text}\nnext: {command_line("check", out)}')
    return out


def _absolute(path: Path) -> Path:
    """Return an absolute path that keeps links, which may come to point elsewhere."""
    return Path(os.path.abspath(path))


def _from_folder_of(leaf: Path, data: Path) -> str:
    """Return the folder of the data as a leaf gives it: relative, if it lies below its folder."""
    folder, data = _absolute(leaf).parent, _absolute(data)
    if data.is_relative_to(folder) and data != folder:
        # MMEngine inserts the folder of the config, wherever that is moved to.
        return f'{{{{ fileDirname }}}}/{data.relative_to(folder).as_posix()}'
    return os.fspath(data)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s detection --data street
        %(prog)s segmentation --data facade --small --out facade-nano.py
        %(prog)s detection --data street --recipe detection/mask-rcnn_swinv2-t-w16_fpn_1x_coco.py
        """,
    )
    parser.add_argument('task', choices=TASKS, help='what to train for')
    parser.add_argument(
        '--data', required=True, metavar='FOLDER', help='folder of the data set'
    ).completer = FOLDERS
    parser.add_argument('--out', metavar='FILE.py', help='default: the name of the folder')
    base = parser.add_mutually_exclusive_group()
    base.add_argument('--recipe', metavar='NAME', help='recipe to build on')
    base.add_argument(
        '--small',
        action='store_true',
        help='build on a narrow model, trained from scratch on a CPU',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(build_parser(), argv, lambda args: call(new, args))
