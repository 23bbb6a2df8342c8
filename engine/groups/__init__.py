"""Groups: the calls on several indexes that go together, and their readers."""
