"""Rich tables and Markdown."""
