"""A kind of index that derives entries from its records: the base for graphs, violations and what else is derived."""
