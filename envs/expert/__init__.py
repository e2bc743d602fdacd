"""A planning demonstrator that solves PushT; run_eval.py takes it as `envs.expert:policy`."""

from envs.expert.demonstrator import policy

__all__ = ["policy"]
