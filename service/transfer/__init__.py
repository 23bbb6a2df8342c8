"""Records that leave a branch, or come to it, as lines of a file."""
