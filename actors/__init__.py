"""Concurrency: one actor one job, messages in order."""
