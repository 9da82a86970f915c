"""Predictions for images and videos that belong to no data set."""

from .inferencer import SwinV2Inferencer
from .prediction import Prediction

__all__ = ['Prediction', 'SwinV2Inferencer']
