"""The source of an index: names of resource types, digests over several types, counts of records."""
