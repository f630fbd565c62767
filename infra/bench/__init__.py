"""Load bench for an OpenAI-compatible endpoint: several modes, interleaved within one run.

It speaks HTTP and JSON and knows nothing of how the server works; the server's own figures
come from the extension in its last chunk.
"""

from infra.bench.options import BenchError, BenchOptions
from infra.bench.report import BenchReport, render
from infra.bench.run import run_bench

__all__ = ["BenchError", "BenchOptions", "BenchReport", "render", "run_bench"]
