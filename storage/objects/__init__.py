"""Objects in a folder or a bucket: named, written once, read whole."""
