"""Laws of likeness: the torch figures are those of the formulas, row by row."""

import numpy as np
import pytest
import torch

from cluster.trio.likeness import coupling, likeness, mean, one_sided
from policies.rejection import coupling_acceptance, rejection_acceptance

RNG = np.random.default_rng(2)


def rows(count: int, vocab: int, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    logits = RNG.normal(size=(2, count, vocab)) * scale
    return torch.tensor(logits[0]), torch.tensor(logits[1])


def probs(logits: torch.Tensor) -> np.ndarray:
    return logits.softmax(-1).numpy()


@pytest.mark.parametrize("scale", [0.3, 2.0, 6.0])
def test_coupling_is_the_law_of_policies(scale):
    slim, full = rows(20, 60, scale)
    expected = [coupling_acceptance(p, q) for p, q in zip(probs(slim), probs(full), strict=True)]
    assert coupling(slim.softmax(-1), full.softmax(-1)).tolist() == pytest.approx(expected)


def test_coupling_of_the_top_tokens_is_nearly_that_of_all():
    slim, full = rows(20, 3000, 4.0)
    expected = [coupling_acceptance(p, q) for p, q in zip(probs(slim), probs(full), strict=True)]
    found = coupling(slim.softmax(-1), full.softmax(-1), top=500).tolist()
    assert found == pytest.approx(expected, abs=0.01)


def test_equal_distributions_couple_always_and_disjoint_ones_never():
    one = torch.eye(4, dtype=torch.float64)
    assert coupling(one, one).tolist() == pytest.approx([1.0] * 4)
    assert coupling(one, one.roll(1, 0)).tolist() == pytest.approx([0.0] * 4)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.3), (0.2, 0.8)])
def test_one_sided_is_the_formula(alpha, beta):
    slim, full = rows(12, 40)
    p, q = probs(slim), probs(full)
    over = np.log(p) - np.log(q)
    expected = p * np.maximum(np.log(1 - alpha) + over, 0)
    expected += q * np.maximum(np.log(beta) + over, 0)
    found = one_sided(slim.log_softmax(-1), full.log_softmax(-1), alpha, beta)
    assert found.tolist() == pytest.approx(expected.sum(-1).tolist())


def test_one_sided_forgives_another_argmax():
    slim = torch.tensor([[0.51, 0.49]]).log()
    full = torch.tensor([[0.49, 0.51]]).log()
    assert one_sided(slim, full).item() == 0
    assert likeness(slim, full).agreement == 0


def test_figures_are_means_over_rows_whatever_the_chunks():
    slim, full = rows(33, 50)
    whole = likeness(slim.float(), full.float(), temperature=0.7, chunk=100)
    parts = likeness(slim.float(), full.float(), temperature=0.7, chunk=8)
    halves = mean(
        likeness(s.float(), f.float(), temperature=0.7)
        for s, f in zip(slim.split(20), full.split(20), strict=True)
    )
    for name in ("rows", "agreement", "coupling", "overlap", "kl", "one_sided"):
        expected = pytest.approx(getattr(whole, name), rel=1e-5)
        assert getattr(parts, name) == expected
        assert getattr(halves, name) == expected
    p, q = probs(slim / 0.7), probs(full / 0.7)
    overlap = np.mean([rejection_acceptance(a, b) for a, b in zip(p, q, strict=True)])
    assert whole.overlap == pytest.approx(overlap, rel=1e-5)
    assert whole.agreement == np.mean(p.argmax(-1) == q.argmax(-1))


def test_a_token_that_the_student_cannot_say_costs_no_number():
    slim, full = rows(4, 10)
    slim[:, :3] = -torch.inf
    found = likeness(slim.float(), full.float())
    assert np.isfinite([found.coupling, found.overlap, found.one_sided]).all()
    assert found.kl == 1e4
