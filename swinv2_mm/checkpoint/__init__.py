"""Load and save weights in every known SwinV2 layout, with torch and safetensors only."""

from .errors import CheckpointError
from .load_report import LoadReport
from .loading import load_pretrained
from .saving import save_pretrained
from .zoo import RELEASED, ReleasedModel

__all__ = [
    'RELEASED',
    'CheckpointError',
    'LoadReport',
    'ReleasedModel',
    'load_pretrained',
    'save_pretrained',
]
