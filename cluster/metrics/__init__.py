"""Which figures go out under which name, and the endpoint where they are read."""
