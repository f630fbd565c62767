"""What must not happen before ranks are there: DeepSpeed's import, and a split that cannot be."""

from __future__ import annotations

import sys

import pytest

import actors.worker
from actors.engine.ranks.autotp import split_model
from actors.engine.route import ModelError
from tests.engine.toys import CPU, toy_model


def test_more_ranks_than_key_value_heads_are_refused():
    with pytest.raises(ModelError, match="3 ranks: the model has 2 key/value heads"):
        split_model(toy_model("llama"), 3, CPU)


def test_a_worker_of_one_process_never_imports_deepspeed():
    """Tests run groups in processes of their own, so nothing here has imported it either."""
    assert actors.worker.Follower
    assert "deepspeed" not in sys.modules
