"""IBCPolicy, and building and loading a policy of any kind."""

from ibc.base import PolicyConfig

__all__ = ["PolicyConfig"]
