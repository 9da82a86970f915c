"""Fused window attention in Triton. Importing this needs no Triton; the first launch does."""

from .launch import fused, triton_gap, window_attention

__all__ = ['fused', 'triton_gap', 'window_attention']
