"""Define the error for an op that needs compiled mmcv."""

from __future__ import annotations

# `pip install --no-binary` alone is not enough: onedl-mmcv 2.3.6 asks the compiler for C++17, while
# recent torch headers need C++20.
HOW_TO_COMPILE = (
    'get the source (pip download --no-deps --no-build-isolation --no-binary :all: onedl-mmcv), '
    'unpack it, write c++20 for c++17 in its setup.py if torch needs that (2.15 does), and run '
    'MAX_JOBS=2 pip install --no-build-isolation --no-deps . in it'
)


def missing_op(name: str) -> NotImplementedError:
    """The error to raise for the op ``name``, or for a use of it that is not covered."""
    return NotImplementedError(
        f'The mmcv op {name} is compiled code that this mmcv lacks and that swinv2_mm has no '
        f'stand-in for; to compile mmcv, {HOW_TO_COMPILE}.'
    )
