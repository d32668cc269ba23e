"""What pqlog costs, as ratios to this disk's own speed: ``python -m benchmarks --help``."""
