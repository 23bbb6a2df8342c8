"""The public calls, grouped by what they are about."""
