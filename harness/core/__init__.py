"""What every other package builds on: errors, files, seeds, provenance."""
