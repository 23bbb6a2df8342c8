"""The Engine: what a host embeds; configuration, readers, start and stop."""
