"""Benchmarks and the simulation: `make bench`, or each by hand with `python -m benchmarks.<name> --help`."""
