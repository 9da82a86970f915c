"""Video-SwinV2, its recogniser and its recipes; see README.md."""
