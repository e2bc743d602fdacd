"""Ray sessions and the resources of a machine or cluster."""
