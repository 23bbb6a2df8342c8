"""What keeps an open engine in order."""
