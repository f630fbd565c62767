"""What a person at a terminal sees: shared options, progress, the start-up list, `top`."""
