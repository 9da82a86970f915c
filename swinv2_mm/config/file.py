"""Read a config file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from swinv2_mm.errors import UserError

from .options import apply_options

_ROOT = str(Path(__file__).resolve().parents[2])


def load_config(path: str, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply ``key=value`` options.

    Args:
        path: A text config.
        options: Such as ``model.backbone.window_size=16``. A key must exist, or be one that its
            object takes; ``+key=value`` adds any other.

    Raises:
        UserError: If the file is missing or not a config, or an option does not fit.
    """
    if not Path(path).is_file():
        raise UserError(f'config {path} does not exist')
    # The code that configs of projects/ import lies beside this package.
    if _ROOT not in sys.path:
        sys.path.append(_ROOT)
    try:
        cfg = Config.fromfile(path)
    except (ImportError, OSError) as error:
        raise UserError(f'config {path}: {error}') from error
    except Exception as error:
        # The file is Python: whatever it raises is a mistake in it.
        raise UserError(f'config {path} is not valid: {type(error).__name__}: {error}') from error
    apply_options(cfg, options)
    return cfg
