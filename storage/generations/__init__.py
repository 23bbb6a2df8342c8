"""Generations: the built copies of an index on disk, and the tasks that build and check them."""
