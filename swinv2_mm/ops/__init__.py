"""Run without mmcv's compiled ops: a stand-in for the extension module ``mmcv._ext``.

A plain ``pip install`` of mmcv has no compiled ops, and then ``import mmcv.ops``, hence
``import mmdet``, fails. :func:`ensure_ops` puts a replacement in place, built on torchvision and
plain torch. Compiled mmcv, where present, always wins.

Nothing heavy is imported here; the work starts with the call.
"""

from __future__ import annotations

import importlib
import importlib.util

__all__ = ['ensure_ops']


def ensure_ops() -> None:
    """Make ``import mmcv.ops`` work, with compiled ops or without.

    Call it before the first import of ``mmcv.ops``; any number of calls is fine. It does nothing
    when mmcv is not installed or has its compiled ops. An extension that is there but does not load
    (built for another torch, say) counts as missing, and the log says why.
    """
    if importlib.util.find_spec('mmcv') is None:
        return
    # Outside the try: an mmcv that is itself broken must show its own error.
    importlib.import_module('mmcv')
    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError as error:
        failure = None if error.name == 'mmcv._ext' else str(error)
    except ImportError as error:
        failure = str(error)
    else:
        return

    from .stand_in import install

    install(failure=failure)
