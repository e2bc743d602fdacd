"""The PushT world; knows nothing of learning, Ray or results."""
