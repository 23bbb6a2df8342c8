"""Switches: what readers get of an index, and how that changes."""
