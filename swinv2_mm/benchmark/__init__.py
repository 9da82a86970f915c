"""Speed and memory of SwinV2 beside the other implementations of it."""
