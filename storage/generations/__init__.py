"""Generations on disk: one built copy of an index each."""
