"""Index backends: how a generation's shards are stored and searched. The protocol is in `protocol`."""
