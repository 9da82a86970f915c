"""Register Video-SwinV2, its recogniser and its data pipeline with MMEngine.

Name it in a config, beside ``swinv2_mm.models``: ``custom_imports = dict(imports=[...])``.
"""

from .backbone import VideoSwinV2
from .clips import LoadClips, PackClips, SpatialCrops
from .dataset import VideoList
from .recognizer import VideoPreprocessor, VideoRecognizer

__all__ = [
    'LoadClips',
    'PackClips',
    'SpatialCrops',
    'VideoList',
    'VideoPreprocessor',
    'VideoRecognizer',
    'VideoSwinV2',
]
