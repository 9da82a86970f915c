"""The transfer study: one training per position bias, tested at larger windows (paper table 1)."""
