"""Text that a model writes itself, with its own last hidden states, for all that learns from it."""
