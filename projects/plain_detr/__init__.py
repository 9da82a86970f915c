"""Plain DETR on SwinV2, see README.md."""
