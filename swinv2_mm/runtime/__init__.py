"""Run exported files where a trained model would run: in tests, and on images."""
