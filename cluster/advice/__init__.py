"""What a trio measures on this hardware, and which plan wins there at which load."""
