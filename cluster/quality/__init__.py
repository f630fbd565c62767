"""Quality report: what each mode of a running server gives, and what it costs, in one run.

The load bench asks; the full model scores the answers afterwards, in this process, as the
server would have chosen after the same prefixes.
"""
