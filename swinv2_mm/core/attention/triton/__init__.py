"""Fused window attention in Triton. Importing this needs no Triton; the first launch does."""

from .launch import fused as fused
from .launch import triton_gap as triton_gap
