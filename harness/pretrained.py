"""The policies that come with the project, for Python: `load("keypoints")`."""

from harness.storage.lookup import pretrained
from ibc.policies.base import Policy
from ibc.policies.factory import load_policy


def load(name: str) -> Policy:
    """Return the policy of policies/NAME on the CPU, ready to act.

    UserError for a name that is not there, with those that are.
    """
    return load_policy(pretrained(name))
