"""Import Gradio without its analytics, or raise an error that says how to install it."""

from __future__ import annotations

import os
import warnings

from swinv2_mm.errors import UserError

# Read while Gradio is imported; without analytics it connects to no server.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
# It uses names that its web framework has renamed; a user of the page cannot change that.
warnings.filterwarnings('ignore', module='gradio')
try:
    import gradio
except ImportError as error:
    raise UserError(f"the page needs Gradio: pip install 'gradio>=6,<6.18' ({error})") from error

__all__ = ['gradio']
