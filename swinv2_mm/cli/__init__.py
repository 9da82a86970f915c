"""Run the commands of the toolkit from Python or from a shell.

``swinv2_mm.cli.test(config, weights)`` returns the metrics that ``swinv2-mm test CONFIG WEIGHTS``
and ``python tools/test.py CONFIG WEIGHTS`` print. Each function is imported when it is first asked
for, so that ``--help`` and shell completion need neither torch nor the OpenMMLab libraries. While
it runs, routine messages of those libraries stay off the console, as in the command.
"""

from functools import cache
from importlib import import_module
from typing import Any

from swinv2_mm.installed import named_if_missing

__all__ = [
    'check',
    'complexity',
    'demo',
    'env',
    'export',
    'gpu_check',
    'infer',
    'memory',
    'new',
    'quickstart',
    'report',
    'serve',
    'test',
    'train',
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _function_of(name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


@cache
def _function_of(command: str) -> Any:
    function = getattr(import_module(f'{__name__}.commands.{command}'), command)
    if command == 'env':
        # It says what is missing from a broken installation, without importing MMEngine.
        return function
    with named_if_missing():
        from swinv2_mm.engine.console import quiet_console

    function = quiet_console()(function)
    # Pickle finds it here, to call it in another process.
    function.__module__ = __name__
    return function
