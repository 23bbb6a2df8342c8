"""The `kv` backend: records by key in LMDB."""
