"""Groups: several indexes that are started, switched, rolled back and read together."""
