"""One branch: admission of writes, locks, states."""
