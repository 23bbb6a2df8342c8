"""Commands for backups, and for a restore."""
