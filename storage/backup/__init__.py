"""Backups of a data directory, in a folder or a bucket."""
