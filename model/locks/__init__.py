"""The locks of one branch: pure rules, no thread, no clock of their own."""
