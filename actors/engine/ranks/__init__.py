"""One model over several processes: rank 0 leads, the others follow its packs.

DeepSpeed's AutoTP decides who holds which part; sessions, slots and sampling are rank 0's alone.
"""
