"""The rows of bench_scale: each measures how a cost grows with the work."""
