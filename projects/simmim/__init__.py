"""Self-supervised pre-training of SwinV2 by SimMIM; see README.md."""
