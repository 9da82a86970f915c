"""Analyse models: FLOPs and memory, position biases and attention, training curves."""
