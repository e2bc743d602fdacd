"""The page on which a person moves the T and the agent and sees a policy's energy."""
