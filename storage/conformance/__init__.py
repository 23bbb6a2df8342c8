"""The conformance suite that every backend must pass; also for people who write their own."""
