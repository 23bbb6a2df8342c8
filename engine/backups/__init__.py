"""Backups: made beside a running engine, listed, verified, removed, restored."""
