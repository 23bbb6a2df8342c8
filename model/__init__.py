"""The rules, pure: no thread, no file, no clock."""
