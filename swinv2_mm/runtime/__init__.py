"""Run exported files where a trained model would run: in tests, and on images."""

import os

# Read while ONNX Runtime is imported; without it, versions from 1.29 report to their maker.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
