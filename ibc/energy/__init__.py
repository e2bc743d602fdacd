"""Energy models and their losses."""
