"""Elementwise kernels of our own around torch's attention: CUDA's default in half precision."""

from .operator import around_sdpa as around_sdpa
from .operator import hybrid_gap as hybrid_gap
