"""Generators and scripts for the development of swinv2_mm; no part of the package."""
