"""What a client may take of the server: connections, the bytes and the time of a body, a share of streams and calls."""
