"""Serve predictions of one model over HTTP."""
