"""Registers Video-SwinV2, its recogniser and its data pipeline with MMEngine.

Name it in a config, beside ``swinv2_mm.models``: ``custom_imports = dict(imports=[...])``.
"""

from .backbone import VideoSwinV2

__all__ = ['VideoSwinV2']
