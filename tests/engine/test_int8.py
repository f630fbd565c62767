"""Laws of int8 weights: a half step from the dense ones, beside nothing that stays dense."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from actors.engine.build import EngineSpec, TierSource, build_engines
from actors.engine.int8 import Int8Linear, quantise_by_torchao, quantise_linears
from actors.engine.loader import load_sliced
from actors.engine.route import ModelError
from actors.engine.sizes import weight_bytes
from policies.vocabulary import Tier
from tests.engine.test_loader import GATE, logits_of, route_of, write_route
from tests.engine.toys import ARCHITECTURES, CPU

over_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
over_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def dequantised(linear: Int8Linear) -> torch.Tensor:
    return linear.weight[:, : linear.in_features].float() * linear.scales.float()[:, None]


def dense_again(model) -> None:
    """Replace what is int8 by dense layers of the same weights."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Int8Linear):
                linear = nn.Linear(child.in_features, child.out_features, bias=False)
                linear.weight = nn.Parameter(dequantised(child).to(model.dtype))
                setattr(module, name, linear)


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    rows=st.integers(1, 20),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_product_is_that_of_weights_a_half_step_away(shape, rows, bias, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(*shape, bias=bias).requires_grad_(False)
    linear.weight[0] = 0.0
    int8 = Int8Linear(linear)
    steps = int8.scales.float()[:, None]
    # The largest weight may lie just past 127 steps: the scale is rounded to bf16.
    error = (dequantised(int8) - linear.weight).abs()
    assert (error <= 0.5 * steps + linear.weight.abs() * 2.0**-8).all()
    x = torch.randn(2, rows, shape[0])
    weight = dequantised(int8).double()
    expected = nn.functional.linear(x.bfloat16().double(), weight)
    if bias:
        expected += linear.bias
    torch.testing.assert_close(int8(x).double(), expected, rtol=2e-2, atol=2e-2)
    assert int8(x).dtype == x.dtype


@over_architectures
@over_dtypes
def test_an_int8_slim_is_the_slim_of_its_dequantised_weights(toy_dirs, architecture, dtype):
    model = load_sliced(toy_dirs[architecture], route_of(), dtype, CPU)
    dense = logits_of(model).float()
    quantise_linears(model)
    found = logits_of(model).float()
    dense_again(model)
    expected = logits_of(model).float()
    spread = expected.std()
    assert (found - expected).abs().max() < 0.3 * spread
    assert (found - expected).std() < 0.03 * spread
    assert 0 < (expected - dense).std() < 0.1 * spread


@over_architectures
def test_every_linear_is_int8_and_the_embedding_dense(toy_dirs, tmp_path, architecture):
    folder = toy_dirs[architecture]
    ids = torch.arange(0, 256, 4)
    save_file({"ids": ids}, tmp_path / "short.safetensors")
    save_file({GATE: torch.full((192, 96), 0.5)}, tmp_path / "delta.safetensors")
    changes = {"shortlist": "short.safetensors", "delta": "delta.safetensors"}
    route = write_route(tmp_path, folder, weights="int8", no_mlp=[3], **changes)
    tiers = {Tier.FULL: TierSource(str(folder)), Tier.SLIM: TierSource(str(folder), str(route))}
    engines = build_engines(EngineSpec(tiers, "bfloat16", "cpu", 2, 128, 32))
    slim = engines[Tier.SLIM].model
    linears = [m for m in slim.modules() if isinstance(m, Int8Linear)]
    assert len(linears) == 3 * 4 + 2 * 3 + 1
    assert slim.lm_head.rows.weight.shape == (64, 96)
    assert slim.model.embed_tokens.weight.dtype == torch.bfloat16
    # First the delta, then the quantisation.
    whole = load_sliced(folder, route_of(), torch.bfloat16, CPU)
    changed = whole.model.layers[1].mlp.gate_proj.weight.float() + 0.5
    gate = slim.model.layers[1].mlp.gate_proj
    assert (dequantised(gate) - changed).abs().max() < changed.abs().max() / 100
    int8 = sum(m.weight.nbytes + m.scales.nbytes for m in linears)
    others = sum(p.nbytes for p in slim.parameters()) + sum(
        b.nbytes for n, b in slim.named_buffers() if "rotary" in n or "embed" in n
    )
    told = engines[Tier.SLIM].stats().weight_bytes
    assert told == weight_bytes([slim]) >= int8 + others - 2 * 96
    assert int8 < told < int8 + others + ids.nbytes + 4096


def test_without_torchao_another_device_says_what_to_install(toy_dirs, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    model = load_sliced(toy_dirs["llama"], route_of(), torch.float32, CPU).to("meta")
    with pytest.raises(ModelError, match=r"meta: torchao .* install .*int8") as refused:
        quantise_linears(model)
    assert "\n" not in str(refused.value)


def test_torchao_gives_the_same_model_and_its_bytes_are_counted(toy_dirs):
    pytest.importorskip("torchao.quantization")
    model = load_sliced(toy_dirs["gemma2"], route_of(), torch.bfloat16, CPU)
    ours = load_sliced(toy_dirs["gemma2"], route_of(), torch.bfloat16, CPU)
    dense_bytes = weight_bytes([model])
    quantise_by_torchao(model)
    quantise_linears(ours)
    found, expected = logits_of(model).float(), logits_of(ours).float()
    assert (found - expected).std() < 0.05 * expected.std()
    assert weight_bytes([ours]) <= weight_bytes([model]) < dense_bytes
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
