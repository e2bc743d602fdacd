"""Search spaces and trial configs, read strictly; imports no torch."""
