"""Demonstrations of PushT by a person with the mouse."""
