"""Define the arguments that several commands share, and parse command lines.

Nothing heavy is imported here or before it in a command, so that ``--help``, shell completion and
a mistyped option do not wait seconds for torch and the OpenMMLab libraries.
"""

from __future__ import annotations

import argparse
import inspect
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter

from swinv2_mm.errors import UserError
from swinv2_mm.shipped import shipped_root

Result = TypeVar('Result')

CONFIGS = FilesCompleter(('py',))
WEIGHTS = FilesCompleter(('pth', 'pt', 'bin', 'safetensors', 'ckpt'))
FOLDERS = DirectoriesCompleter()

# oneDNN and torch cache compiled kernels for the last 1024 shapes: half a gigabyte. A model
# uses about fifty at one image size.
_KERNEL_CACHES = ('ONEDNN_PRIMITIVE_CACHE_CAPACITY', 'LRU_CACHE_CAPACITY')
_NUM_KERNELS = '256'


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Show defaults, where there are any and the text does not name them itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or '', action.default
        if default in (None, False, [], argparse.SUPPRESS) or 'default' in text:
            return text
        shown = ' '.join(map(str, default)) if isinstance(default, list) else default
        return f'{text} (default: {shown})'


def new_parser(description: str, *, examples: str) -> argparse.ArgumentParser:
    """Create the parser of a command.

    Args:
        description: What it does; the docstring of its module.
        examples: Whole command lines that work, one per line; ``%(prog)s`` stands for the program.
    """
    return argparse.ArgumentParser(
        prog=_program(),
        description=description,
        epilog=f'examples:\n{textwrap.indent(textwrap.dedent(examples).strip(), "  ")}',
        formatter_class=_HelpFormatter,
    )


def _program() -> str:
    """Return the running program as it can be pasted into a shell."""
    program = sys.argv[0]
    return f'python {program}' if program.endswith('.py') else program


def add_command(
    commands: argparse._SubParsersAction, name: str, summary: str
) -> argparse.ArgumentParser:
    """Add a subcommand."""
    return commands.add_parser(
        name, help=summary, description=f'{summary}.', formatter_class=_HelpFormatter
    )


def parse(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    *,
    is_intermixed: bool = False,
) -> argparse.Namespace:
    """Parse a command line, or answer a shell that asks for completions.

    Also bounds the memory that images of ever new sizes take, before torch is there to read it.

    A script that uses it has the words PYTHON_ARGCOMPLETE_OK near its top: shells look for them.

    Args:
        parser: Parser of the command.
        argv: Its arguments; default those of the process.
        is_intermixed: Whether options may stand between positional arguments whose number varies.
    """
    argcomplete.autocomplete(parser)
    for name in _KERNEL_CACHES:
        os.environ.setdefault(name, _NUM_KERNELS)
    return parser.parse_intermixed_args(argv) if is_intermixed else parser.parse_args(argv)


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    action: Callable[[argparse.Namespace], object],
    *,
    is_intermixed: bool = False,
    runs_model: bool = False,
) -> None:
    """Parse a command line and run its command; see ``run_tool`` for what errors become.

    Args:
        parser: Parser of the command.
        argv: Arguments of the command; default those of the process.
        action: Runs the command.
        is_intermixed: See ``parse``.
        runs_model: Whether it imports torch and the libraries, which takes seconds, and computes:
            then the command line is printed first, and freed memory is kept.
    """
    args = parse(parser, argv, is_intermixed=is_intermixed)
    if runs_model:
        _announce(argv)
    from swinv2_mm.cli.running import keep_freed_memory, run_tool

    def run() -> None:
        if runs_model:
            keep_freed_memory()
        action(args)

    run_tool(run, trust_checkpoint=getattr(args, 'trust_checkpoint', False))


def _announce(argv: Sequence[str] | None) -> None:
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
        words = shlex.join(sys.argv[1:] if argv is None else argv)
        print(f'{time.strftime("%H:%M:%S")}  {_program()} {words}', flush=True)


def command_line(name: str, *words: object) -> str:
    """Return the command line of another command, as the running one was called.

    Args:
        name: Name of the command, such as ``test``.
        words: Its arguments.
    """
    script = Path(sys.argv[0])
    # A notebook or a script of the user is none of our tools.
    is_tool = script.resolve().parent == (shipped_root() / 'tools').resolve()
    program = ['python', script.with_name(f'{name}.py')] if is_tool else ['swinv2-mm', name]
    return shlex.join(map(str, [*program, *words]))


def call(function: Callable[..., Result], args: argparse.Namespace, **others: Any) -> Result:
    """Call a function with the values of a command line that have the names of its arguments.

    Args:
        function: What the command runs.
        args: The command line.
        others: Further arguments of the function.
    """
    names = inspect.signature(function).parameters
    values = {name: value for name, value in vars(args).items() if name in names}
    return function(**values, **others)


def add_config(parser: argparse._ActionsContainer, *, nargs: str | None = None) -> None:
    """Add the config file."""
    parser.add_argument(
        'cfg', metavar='config', nargs=nargs, help='config file'
    ).completer = CONFIGS


def add_shape(parser: argparse._ActionsContainer, *, default: str) -> None:
    """Add the size of an image, for ``parse_shape``."""
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[],
        metavar=('H', 'W'),
        help=f'size of the image in pixels; default: {default}',
    )


def parse_shape(sides: Sequence[int]) -> tuple[int, int] | None:
    """Return height and width, of which one side is enough; ``None`` if there is none.

    Raises:
        UserError: If there are more than two, or one is not positive.
    """
    if sides and (len(sides) > 2 or min(sides) < 1):
        raise UserError(f'--shape takes one or two positive sides, got {list(sides)}')
    return (sides[0], sides[-1]) if sides else None


def parse_window(text: str) -> tuple[int, int]:
    """Return height and width of a window, ``8`` or ``8x12``; a ``type`` of argparse."""
    sides = text.split('x')
    if len(sides) > 2 or not all(s.isascii() and s.isdecimal() and int(s) for s in sides):
        raise argparse.ArgumentTypeError(f"'{text}' is no window; write 8, or 8x12")
    return int(sides[0]), int(sides[-1])


def parse_windows(text: str) -> int | tuple[int | tuple[int, int], ...]:
    """Return what ``set_window_size`` takes for one window for all stages, or one per stage.

    ``16``, ``16x8`` (height, width) or ``16,16x8,8,8``; a ``type`` of argparse.
    """
    windows = [parse_window(stage) for stage in text.split(',')]
    stages = tuple(height if height == width else (height, width) for height, width in windows)
    return stages[0] if len(stages) == 1 and isinstance(stages[0], int) else stages


def add_work_dir(parser: argparse._ActionsContainer) -> None:
    """Add the folder that a run writes to."""
    parser.add_argument(
        '--work-dir',
        metavar='FOLDER',
        help='folder for logs and checkpoints; default work_dirs/NAME_OF_THE_CONFIG',
    ).completer = FOLDERS


def add_cfg_options(parser: argparse._ActionsContainer) -> None:
    """Add overrides of config entries."""
    parser.add_argument(
        '--cfg-options',
        dest='options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change config entries, such as model.backbone.window_size=16; a key that nothing '
        'takes is refused, +KEY=VALUE adds one',
    )


def add_predictor(group: argparse._ActionsContainer) -> None:
    """Add the options that name a trained model to predict with."""
    group.add_argument(
        '--config', dest='cfg', metavar='FILE', help='config file; an exported file has its own'
    ).completer = CONFIGS
    group.add_argument(
        '--weights',
        required=True,
        metavar='CKPT',
        help='checkpoint, weights of any layout, a released name, or an exported file',
    ).completer = WEIGHTS
    add_device(group)
    group.add_argument(
        '--window-size',
        type=parse_windows,
        metavar='N[,N...]',
        help='another window, in tokens: one for all stages or one per stage, each N or HxW',
    )
    add_cfg_options(group)
    add_trust(group)


def add_trust(parser: argparse._ActionsContainer) -> None:
    """Add the switch that lets checkpoints run code."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle checkpoints without restrictions, so that they can run code; only for '
        'trusted sources',
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add the device that predictions are made on."""
    parser.add_argument(
        '--device', metavar='NAME', help='cpu, cuda, cuda:1, ...; default: a GPU if there is one'
    )


def add_launcher(parser: argparse._ActionsContainer) -> None:
    """Add the launcher of a distributed job."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        # Without it, each process of torchrun would do the whole work, in the same folder.
        default='pytorch' if 'TORCHELASTIC_RUN_ID' in os.environ else 'none',
        help='how the processes of a distributed job were started, default pytorch under torchrun; '
        'the scripts tools/dist_*.sh and tools/slurm_*.sh set it',
    )
    # torchrun and its predecessor pass it; the environment holds the same.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
