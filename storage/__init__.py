"""What is on disk: LMDB catalog, journal and records, generation directories, index backends."""
