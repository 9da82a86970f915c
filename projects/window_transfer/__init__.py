"""Compare position biases: train once, test at larger windows (paper table 1)."""
