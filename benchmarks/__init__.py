"""Time and memory of SwinV2 and of the peer implementations, measured side by side."""
