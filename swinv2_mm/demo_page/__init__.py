"""Serve a web page for predictions with trained models."""
