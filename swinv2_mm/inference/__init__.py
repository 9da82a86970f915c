"""Predict for images and videos outside a data set."""

from .inferencer import SwinV2Inferencer
from .prediction import Prediction

__all__ = ['Prediction', 'SwinV2Inferencer']
