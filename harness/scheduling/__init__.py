"""Which trial runs next: plans, searches, successive halving."""
