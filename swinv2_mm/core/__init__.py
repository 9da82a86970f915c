"""The Swin Transformer V2 backbone in plain PyTorch: torch and the standard library only."""

from .architectures import ARCHITECTURES, Architecture
from .swin_transformer_v2 import SwinTransformerV2

__all__ = ['ARCHITECTURES', 'Architecture', 'SwinTransformerV2']
