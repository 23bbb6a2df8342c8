"""The `fts5` backend: full-text search with SQLite FTS5."""
