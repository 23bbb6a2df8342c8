"""The daemon of a server: mirrors, indexes, inbox, webhooks."""
