"""Commands that bring records in and out."""
