"""Commands that say whether a shadow is better than the live index, and what it would cost."""
