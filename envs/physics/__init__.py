"""The bodies of PushT and the geometry of its T."""
