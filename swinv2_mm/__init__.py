"""SwinV2 for OpenMMLab: detection, segmentation and classification at any window size.

Importing this package loads nothing heavy; ``import swinv2_mm.models`` registers the backbone.
"""

__version__ = '0.1.0'
