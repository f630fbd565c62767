"""Laws of half layers: what is left out is skipped, what is kept is the full model's."""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actors.engine.halves import parts_of
from actors.engine.loader import load_full, load_sliced, slim_of
from actors.engine.route import ModelError
from actors.engine.sizes import weight_bytes
from tests.engine.test_loader import logits_of, route_of, storages
from tests.engine.toys import ARCHITECTURES, CPU, WINDOW, make_engine, text

over_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
HALVED = {"no_attention": (1, 3), "no_mlp": (0,)}
LENGTH = WINDOW - 4


@torch.inference_mode()
def by_hand(model_dir, route, ids) -> torch.Tensor:
    """Logits (tokens, V) by transformers' own parts, layer by layer, with its own attention."""
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation="eager"
    )
    inner, length = model.model, len(ids)
    x = inner.embed_tokens(torch.tensor([ids]))
    turned = inner.rotary_emb(x, torch.arange(length)[None])
    mask = torch.full((1, 1, length, length), -torch.inf).triu(1)
    for i in route.kept_layers:
        layer = inner.layers[i]
        gemma = hasattr(layer, "pre_feedforward_layernorm")
        if i not in route.no_attention:
            seen = layer.input_layernorm(x)
            seen, _ = layer.self_attn(
                hidden_states=seen, position_embeddings=turned, attention_mask=mask
            )
            x = x + (layer.post_attention_layernorm(seen) if gemma else seen)
        if i not in route.no_mlp:
            before = layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm
            more = layer.mlp(before(x))
            x = x + (layer.post_feedforward_layernorm(more) if gemma else more)
    logits = model.lm_head(inner.norm(x))[0]
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@over_architectures
def test_a_half_layer_passes_the_residual_stream(toy_dirs, architecture):
    route = route_of(**HALVED)
    expected = by_hand(toy_dirs[architecture], route, text(1, LENGTH))
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    for model in (
        slim_of(full, route, None),
        load_sliced(toy_dirs[architecture], route, torch.float32, CPU),
    ):
        torch.testing.assert_close(logits_of(model, LENGTH), expected, rtol=1e-4, atol=1e-4)


@over_architectures
def test_both_slims_are_bit_for_bit_the_same_and_the_full_model_stays_whole(toy_dirs, architecture):
    route = route_of(**HALVED)
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    before = logits_of(full)
    shared = slim_of(full, route, None)
    sliced = load_sliced(toy_dirs[architecture], route, torch.float32, CPU)
    assert torch.equal(logits_of(shared), logits_of(sliced))
    assert torch.equal(logits_of(full), before)
    assert storages(shared) < storages(full)


@over_architectures
def test_a_half_left_out_is_neither_read_nor_cached(toy_dirs, architecture):
    state = load_file(toy_dirs[architecture] / "model.safetensors")
    gemma = architecture == "gemma2"
    attention_norms = ["input_layernorm"] + ["post_attention_layernorm"] * gemma
    mlp_norms = (
        ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        if gemma
        else ["post_attention_layernorm"]
    )
    gone = tuple(
        f"model.layers.{i}.{part}."
        for layers, parts in (
            ((1, 3), ["self_attn", *attention_norms]),
            ((0,), ["mlp", *mlp_norms]),
            ((2,), ["self_attn", "mlp", *attention_norms, *mlp_norms]),
        )
        for i, part in itertools.product(layers, parts)
    )
    sliced = load_sliced(toy_dirs[architecture], route_of(**HALVED), torch.float32, CPU)
    held = {p.data_ptr(): p.nbytes for p in sliced.parameters()}
    assert sum(held.values()) == sum(t.nbytes for n, t in state.items() if not n.startswith(gone))
    whole = make_engine(load_full(toy_dirs[architecture], torch.float32, CPU))
    cost = whole.stats().kv_bytes_per_token
    assert make_engine(sliced).stats().kv_bytes_per_token == cost // 4


def test_layers_without_any_attention_are_served(toy_dirs):
    route = route_of(no_attention=(0, 1, 3))
    sliced = load_sliced(toy_dirs["llama"], route, torch.float32, CPU)
    expected = by_hand(toy_dirs["llama"], route, text(1, LENGTH))
    torch.testing.assert_close(logits_of(sliced, LENGTH), expected, rtol=1e-4, atol=1e-4)
    assert make_engine(sliced).stats().kv_bytes_per_token == 0
    assert weight_bytes([sliced]) > 0


def test_a_delta_of_a_half_left_out_is_refused(toy_dirs, tmp_path):
    path = tmp_path / "delta.safetensors"
    save_file({"model.layers.1.self_attn.q_proj.weight": torch.ones(96, 96)}, path)
    route = route_of(no_attention=(1,))
    with pytest.raises(ModelError, match="no parameter of a kept layer"):
        load_sliced(toy_dirs["llama"], route, torch.float32, CPU, path)
    with pytest.raises(ModelError, match="no parameter of a kept layer"):
        slim_of(load_full(toy_dirs["llama"], torch.float32, CPU), route, path)


def test_layers_of_unknown_parts_are_not_halved():
    """Where one norm serves both halves, or has another name, nobody knows what to skip."""
    with pytest.raises(ModelError, match="input_layernorm, mlp, self_attn cannot be halved"):
        parts_of("mlp", {"self_attn", "mlp", "input_layernorm"})
