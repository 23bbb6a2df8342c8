"""What people and programs touch from outside: command line, and later HTTP and dashboard."""
