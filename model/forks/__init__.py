"""What two branches changed, and what becomes of it."""
