"""The chain: numbered objects of a store, each made once."""
