"""The interfaces of the engine: command line, HTTP and dashboard, daemon, demo."""
