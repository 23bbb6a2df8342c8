"""Groups: several indexes that are switched and rolled back in one transaction."""
