"""Commands for branches, and how forks are shown."""
