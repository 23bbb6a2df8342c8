"""The `graph` backend: the edges that lie in records, and what they lead to."""
