"""The `schema` backend: the types that records define, their properties, and what uses them."""
