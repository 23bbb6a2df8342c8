"""The Engine: its public calls, its readers, its start and stop."""
