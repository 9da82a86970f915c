# PYTHON_ARGCOMPLETE_OK
"""Dispatch ``swinv2-mm COMMAND ...`` to the module of the command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import argcomplete

import swinv2_mm

# Modules of ``swinv2_mm.cli.commands``.
COMMANDS = {
    'train': 'train a detector, segmentor or classifier from a config',
    'test': 'evaluate a trained model on the test set of a config',
    'infer': 'predict for images, folders and videos',
    'demo': 'serve a page on which trained models can be tried',
    'serve': 'serve the predictions of a trained model over HTTP',
    'export': 'write a trained model as ONNX or torch.export, verified',
    'report': 'write a report of a training as one HTML file',
    'check': 'validate the data sets of a config',
    'complexity': "report the parameters, FLOPs and GPU memory of a config's model",
    'memory': 'find the options that make a training fit into the memory of a GPU',
    'plot': 'draw biases, attention, activations, training curves, learning rates',
    'gpu_check': 'check which attention is right and fast on a GPU, beside timm',
    'env': 'report what is installed, what works and what is missing',
    'new': 'write a config for your own data, from a look at the data',
    'quickstart': 'train and test all three tasks on a small generated data set',
    'checkpoint': 'inspect, convert, compare, bake or consolidate weights',
}


def main(names: Sequence[str] = tuple(COMMANDS), *, program: str = 'swinv2-mm') -> None:
    """Run the command that ``sys.argv`` names.

    Args:
        names: Commands on offer.
        program: What precedes the command in a shell, for the help.
    """
    if '_ARGCOMPLETE' in os.environ:
        sys.argv[1:] = _named_command(names)
    parser = argparse.ArgumentParser(
        prog=program,
        description='SwinV2 for OpenMMLab: detection, segmentation and classification.',
        epilog='\n'.join(
            [
                'commands:',
                *(f'  {name:<12}{COMMANDS[name]}' for name in names),
                '\nexamples:',
                f'  {program} {names[0]} --help',
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('command', choices=names, metavar='COMMAND', help='see below')
    version = f'swinv2_mm {swinv2_mm.__version__}'
    parser.add_argument('--version', action='version', version=version)
    if len(sys.argv) == 1:
        argcomplete.autocomplete(parser, always_complete_options=False)
        parser.print_help(sys.stderr)
        sys.exit(2)
    command = parser.parse_args(sys.argv[1:2]).command
    sys.argv = [f'{program} {command}', *sys.argv[2:]]
    import_module(f'swinv2_mm.cli.commands.{command}').main()


def _named_command(names: Sequence[str]) -> list[str]:
    """Return the command in a line that a shell completes, and have its own words completed."""
    first = int(os.environ['_ARGCOMPLETE'])
    words = os.environ['COMP_LINE'][: int(os.environ['COMP_POINT'])].split(' ')
    if len(words) > first + 1 and words[first] in names:
        os.environ['_ARGCOMPLETE'] = str(first + 1)
        return [words[first]]
    return []
