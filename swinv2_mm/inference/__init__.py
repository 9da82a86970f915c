"""Predict for images and videos outside a data set."""

from .inferencer import SwinV2Inferencer
from .prediction import Prediction
from .tiles import TiledPrediction

__all__ = ['Prediction', 'SwinV2Inferencer', 'TiledPrediction']
