"""Benchmarks of pqlog, as ratios to the speed of this disk: ``python -m benchmarks --help``."""
