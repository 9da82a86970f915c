"""Test-time augmentation: predictions for several scales and flips of an image, merged."""
