"""A sweep's HTML report: one self-contained file, made from the sweep's tables."""
