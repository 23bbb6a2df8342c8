"""Builds: from the claimed directory to BUILT."""
