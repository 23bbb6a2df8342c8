"""What operators and their machines read."""
