"""Quality: two indexes are asked the same queries, in a worker process."""
