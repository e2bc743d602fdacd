"""A person demonstrates PushT with the mouse."""
