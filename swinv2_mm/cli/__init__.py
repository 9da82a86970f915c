"""Run the commands of the toolkit from Python or from a shell.

``swinv2_mm.cli.test(config, weights)`` returns the metrics that ``swinv2-mm test CONFIG WEIGHTS``
and ``python tools/test.py CONFIG WEIGHTS`` print. Each function is imported when it is first asked
for, so that ``--help`` and shell completion need neither torch nor the OpenMMLab libraries.
"""

from importlib import import_module
from typing import Any

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
        return getattr(import_module(f'{__name__}.commands.{name}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
