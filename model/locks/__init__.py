"""The locks of one branch: pure rules, no thread, no clock."""
