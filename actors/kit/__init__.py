"""What every actor is made of."""
