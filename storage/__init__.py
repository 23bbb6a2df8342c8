"""Everything on disk: the LMDB catalog with journal and records, generation directories, index backends."""
