"""Define the error for an op that needs compiled mmcv."""

from __future__ import annotations

from swinv2_mm.installed import installed

# `pip install --no-binary` alone is not enough: onedl-mmcv 2.3.6 asks the compiler for C++17, while
# recent torch headers need C++20.
HOW_TO_COMPILE = (
    'get the source (pip download --no-deps --no-build-isolation --no-binary :all: {source}), '
    'unpack it, write c++20 for c++17 in its setup.py if torch needs that (2.15 does), and run '
    'MAX_JOBS=2 pip install --no-build-isolation --no-deps . in it'
)


def missing_op(name: str) -> NotImplementedError:
    """Return the error to raise for the op ``name``, or for a use of it that is not covered."""
    present = installed('mmcv')
    source = 'onedl-mmcv' if present.startswith('onedl') else 'mmcv'
    return NotImplementedError(
        f'The mmcv op {name} is compiled code, and {present} has none that loads (it is '
        f'mmcv-lite, or was built without ops or for another torch); swinv2_mm has no stand-in for '
        f'this op. To compile mmcv, {HOW_TO_COMPILE.format(source=source)}.'
    )
