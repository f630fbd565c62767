"""What must not happen before ranks are there: DeepSpeed's import, and a split that cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from actors.engine.ranks.autotp import split_model
from actors.engine.route import ModelError
from cluster.config import ROOT
from tests.engine.toys import CPU, toy_model


def test_more_ranks_than_key_value_heads_are_refused():
    with pytest.raises(ModelError, match="3 ranks: the model has 2 key/value heads"):
        split_model(toy_model("llama"), 3, CPU)


def test_nothing_of_ours_imports_deepspeed_before_a_model_is_split():
    """In a process of its own: transformers may have imported it in this one."""
    code = "import sys, actors.worker, cluster.app; sys.exit('deepspeed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
