"""The query kinds as calls of a reader: `reader.graph.neighbours(...)`."""
