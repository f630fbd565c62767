"""A simulated fleet in virtual time that is run by the real policies."""
