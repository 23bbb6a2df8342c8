"""Forks: branches made from others, and what is brought back."""
