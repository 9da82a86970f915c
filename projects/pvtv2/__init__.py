"""PVTv2 as a baseline beside SwinV2; see README.md."""
