"""Which builds copy, and which wait."""
