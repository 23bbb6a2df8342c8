"""The actors that keep an open engine in order: journal, clean-up, events, watched folders."""
