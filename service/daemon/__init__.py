"""What a host keeps going beside its API."""
