"""Index backends: they store and search the shards of a generation. `protocol` says what a backend promises."""
