"""What is made of the hits of a search."""
