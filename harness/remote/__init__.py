"""Results on an object store."""
