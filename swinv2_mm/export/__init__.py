"""Export models to ONNX and ``torch.export``: files that run without this package."""
