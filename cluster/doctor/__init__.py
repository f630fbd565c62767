"""`python -m cluster doctor`: is this machine, this cluster, this endpoint fit to serve?

Each module looks at one part and returns findings; nothing is changed, and nothing is started
but, with --address, a connection to Ray.
"""
