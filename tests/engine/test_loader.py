"""Laws of loading: a slim shares or reads only what it keeps, and what cannot be served is
refused with a reason."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import BartConfig, BertConfig, MambaConfig, PreTrainedTokenizerFast, T5Config

from actors.engine.build import EngineSpec, TierSource, build_engines, check_same_tokenizer
from actors.engine.build import checked_route as check_route
from actors.engine.loader import load_config, load_full, load_sliced, slim_of
from actors.engine.route import ModelError, Route, fingerprint, read_route
from actors.engine.seam import Extend
from actors.engine.sizes import weight_bytes
from policies.vocabulary import Tier
from tests.engine.toys import (
    ARCHITECTURES,
    CPU,
    VOCAB,
    WINDOW,
    context,
    make_engine,
    save_toy,
    text,
)

KEPT = (0, 1, 3)
GATE, QUERY = "model.layers.1.mlp.gate_proj.weight", "model.layers.3.self_attn.q_proj.weight"
over_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
over_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def route_of(**changes) -> Route:
    fields = {"model_fingerprint": "unchecked", "num_layers": 4, "kept_layers": KEPT}
    return Route(**fields | changes)


def logits_of(model, length: int = 100) -> torch.Tensor:
    engine = make_engine(model, num_slots=1)
    [rows] = engine.logits([Extend(context("s", text(1, length)), length, length)])
    return torch.stack(rows)


def storages(model) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}


def dense_delta() -> dict[str, torch.Tensor]:
    """For toys with queries of 6 x 32: all but Llama."""
    generator = torch.Generator().manual_seed(1)
    return {
        GATE: torch.randn(192, 96, generator=generator) * 0.05,
        QUERY: torch.randn(192, 96, generator=generator) * 0.05,
    }


def lora_delta() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    halves = {"lora_a": (4, 96), "lora_b": (192, 4)}
    return {
        f"{name}.{half}": torch.randn(shape, generator=generator) * 0.2
        for name, (half, shape) in itertools.product((GATE, QUERY), halves.items())
    }


@over_architectures
def test_a_slim_beside_its_full_model_adds_no_weight(toy_dirs, architecture):
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    slim = slim_of(full, route_of(), None)
    assert storages(slim) < storages(full)
    assert weight_bytes([full, slim]) == weight_bytes([full])
    assert len(slim.model.layers) == len(KEPT)
    assert len(full.model.layers) == 4


@over_architectures
@over_dtypes
def test_a_sliced_slim_is_the_shared_one_bit_for_bit(toy_dirs, architecture, dtype):
    shared = slim_of(load_full(toy_dirs[architecture], dtype, CPU), route_of(), None)
    sliced = load_sliced(toy_dirs[architecture], route_of(), dtype, CPU)
    assert torch.equal(logits_of(shared), logits_of(sliced))


@over_architectures
def test_a_slim_is_the_model_without_the_layers_left_out(toy_dirs, architecture):
    """By another way: the full model with the outputs of those layers ignored."""
    slim = slim_of(load_full(toy_dirs[architecture], torch.float32, CPU), route_of(), None)
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    whole = logits_of(full)
    full.model.layers[2].forward = lambda hidden_states, **kwargs: hidden_states
    assert torch.equal(logits_of(slim), logits_of(full))
    assert not torch.equal(logits_of(slim), whole)


@over_architectures
def test_the_whole_route_is_the_full_model(toy_dirs, architecture):
    full = load_full(toy_dirs[architecture], torch.float32, CPU)
    whole = slim_of(full, route_of(kept_layers=(0, 1, 2, 3)), None)
    assert torch.equal(logits_of(whole), logits_of(full))


@over_architectures
def test_a_sliced_slim_holds_what_it_keeps_and_no_more(toy_dirs, architecture):
    state = load_file(toy_dirs[architecture] / "model.safetensors")
    layers = [f"model.layers.{i}." for i in KEPT]
    needed = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith("model.layers.") or name.startswith(tuple(layers))
    }
    sliced = load_sliced(toy_dirs[architecture], route_of(), torch.float32, CPU)
    parameters = {p.data_ptr(): p.nbytes for p in sliced.parameters()}
    assert sum(parameters.values()) == sum(t.nbytes for t in needed.values())


def test_the_window_stays_with_its_layers(toy_dirs):
    """Gemma2 alternates; without layer 2 two neighbours are of one kind."""
    full = load_full(toy_dirs["gemma2"], torch.float32, CPU)
    types = full.config.layer_types
    assert full.config.sliding_window == WINDOW
    assert len(set(types)) == 2
    for slim in (
        slim_of(full, route_of(), None),
        load_sliced(toy_dirs["gemma2"], route_of(), torch.float32, CPU),
    ):
        assert slim.config.layer_types == [types[i] for i in KEPT]
        windows = [layer.self_attn.sliding_window for layer in slim.model.layers]
        assert windows == [WINDOW if types[i] == "sliding_attention" else None for i in KEPT]
    assert full.config.layer_types == types


@pytest.mark.parametrize("make_delta", [dense_delta, lora_delta])
@over_dtypes
@pytest.mark.parametrize("architecture", ["qwen3", "gemma2"])
def test_a_delta_changes_both_slims_alike_and_the_full_model_not(
    toy_dirs, tmp_path, make_delta, dtype, architecture
):
    path = tmp_path / "delta.safetensors"
    save_file(make_delta(), path)
    full = load_full(toy_dirs[architecture], dtype, CPU)
    before = {name: p.clone() for name, p in full.named_parameters()}
    shared = slim_of(full, route_of(), path)
    sliced = load_sliced(toy_dirs[architecture], route_of(), dtype, CPU, path)
    plain = slim_of(full, route_of(), None)
    assert torch.equal(logits_of(shared), logits_of(sliced))
    assert not torch.equal(logits_of(shared), logits_of(plain))
    assert all(torch.equal(p, before[name]) for name, p in full.named_parameters())
    shares = {p.data_ptr() for p in full.parameters()}
    own = [p.nbytes for p in shared.parameters() if p.data_ptr() not in shares]
    assert own == [192 * 96 * dtype.itemsize] * 2, "only what the delta names is held twice"


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        ({"model.layers.2.mlp.gate_proj.weight": (192, 96)}, "no parameter of a kept layer"),
        ({"model.layers.1.mlp.gate.weight": (192, 96)}, "no parameter of a kept layer"),
        ({"model.embed_tokens.weight": (256, 96)}, "no parameter of a kept layer"),
        ({"lm_head.weight": (256, 96)}, "no parameter of a kept layer"),
        ({f"{GATE}.lora_a": (4, 96)}, "one half"),
        ({f"{GATE}.lora_a": (4, 96), f"{GATE}.lora_b": (192, 5)}, "multiplied"),
        ({GATE: (96,)}, "cannot add"),
    ],
)
def test_a_delta_that_would_be_ignored_or_misapplied_is_refused(toy_dirs, tmp_path, delta, reason):
    path = tmp_path / "delta.safetensors"
    save_file({name: torch.ones(shape) for name, shape in delta.items()}, path)
    with pytest.raises(ModelError, match=reason):
        load_sliced(toy_dirs["qwen3"], route_of(), torch.float32, CPU, path)
    with pytest.raises(ModelError, match=reason):
        slim_of(load_full(toy_dirs["qwen3"], torch.float32, CPU), route_of(), path)


def write_route(folder: Path, model_dir: Path, **changes) -> Path:
    fields = {
        "format": "viaserve-route-1",
        "model_fingerprint": fingerprint(model_dir),
        "num_layers": 4,
        "kept_layers": KEPT,
    }
    path = folder / "route.json"
    path.write_text(json.dumps(fields | changes))
    return path


def test_a_good_route_is_read(toy_dirs, tmp_path):
    (tmp_path / "delta.safetensors").touch()
    save_file({"ids": torch.tensor([1, 4])}, tmp_path / "short.safetensors")
    path = write_route(
        tmp_path,
        toy_dirs["llama"],
        delta="delta.safetensors",
        dtype="bfloat16",
        weights="int8",
        shortlist="short.safetensors",
        no_attention=[3],
        no_mlp=[0, 1],
    )
    cut = check_route(toy_dirs["llama"], path)
    assert (cut.route.kept_layers, cut.route.dtype) == (KEPT, "bfloat16")
    assert (cut.route.no_attention, cut.route.no_mlp) == ((3,), (0, 1))
    assert cut.route.weights == "int8"
    assert cut.delta == tmp_path / "delta.safetensors"
    assert cut.shortlist is not None
    assert cut.shortlist.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model_fingerprint": "0123456789abcdef"}, "0123456789abcdef"),
        ({"num_layers": 5}, "num_layers"),
        ({"kept_layers": [0, 3, 1]}, "kept_layers"),
        ({"kept_layers": [0, 0, 1]}, "kept_layers"),
        ({"kept_layers": [0, 4]}, "kept_layers"),
        ({"kept_layers": []}, "kept_layers"),
        ({"kept_layers": [-1, 2]}, "kept_layers"),
        ({"kept_layers": "all"}, "kept_layers"),
        ({"format": "viaserve-route-9"}, "format"),
        ({"dtype": "int3"}, "dtype"),
        ({"dleta": "x"}, "dleta"),
        ({"delta": "absent.safetensors"}, "absent.safetensors"),
        ({"shortlist": "absent.safetensors"}, "shortlist absent.safetensors"),
        ({"weights": "int4"}, "weights"),
        ({"no_attention": [2]}, "no_attention"),
        ({"no_attention": [1, 0]}, "no_attention"),
        ({"no_mlp": [1, 1]}, "no_mlp"),
        ({"no_mlp": ["first"]}, "no_mlp"),
        ({"no_attention": [0, 3], "no_mlp": [3]}, "share layer 3"),
    ],
)
def test_a_route_that_does_not_fit_is_refused_by_key(toy_dirs, tmp_path, changes, key):
    path = write_route(tmp_path, toy_dirs["llama"], **changes)
    with pytest.raises(ModelError) as refused:
        check_route(toy_dirs["llama"], path)
    assert key in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_a_route_file_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "route.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"route\.json"):
        read_route(path)


def test_a_fingerprint_is_of_the_weights_not_of_the_folder(toy_dirs, tmp_path):
    copied = shutil.copytree(toy_dirs["llama"], tmp_path / "copy")
    (copied / "README.md").write_text("moved")
    other = save_toy(tmp_path / "other", "llama", seed=1)
    assert fingerprint(copied) == fingerprint(toy_dirs["llama"]) != fingerprint(other)


@pytest.fixture
def broken(toy_dirs, tmp_path) -> Path:
    """A copy to break."""
    return shutil.copytree(toy_dirs["llama"], tmp_path / "broken")


def change_config(model_dir: Path, **changes) -> None:
    path = model_dir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load_both_ways(model_dir: Path, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as refused:
        load_full(model_dir, torch.float32, CPU)
    assert "\n" not in str(refused.value)
    with pytest.raises(ModelError, match=reason):
        load_sliced(model_dir, route_of(), torch.float32, CPU)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    load_both_ways(tmp_path / "nowhere", r"no config\.json")
    with pytest.raises(ModelError, match="nowhere"):
        fingerprint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mystery"}, "mystery"),
        ({"num_hidden_layers": "four"}, "num_hidden_layers"),
        ({"hidden_size": 97}, "97"),
    ],
)
def test_a_config_that_makes_no_model_is_refused(broken, changes, reason):
    change_config(broken, **changes)
    load_both_ways(broken, reason)


def test_a_config_that_is_no_json_is_refused(broken):
    (broken / "config.json").write_text("{")
    load_both_ways(broken, "JSON")


@pytest.mark.parametrize("config", [BertConfig, T5Config, BartConfig, MambaConfig])
def test_only_decoders_with_attention_are_served(tmp_path, config):
    config().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=config.model_type):
        load_config(tmp_path)


def test_pickled_weights_are_refused(broken):
    torch.save(load_file(broken / "model.safetensors"), broken / "pytorch_model.bin")
    (broken / "model.safetensors").unlink()
    load_both_ways(broken, "safetensors")


def test_broken_weights_are_refused(broken):
    (broken / "model.safetensors").write_bytes(b"junk")
    load_both_ways(broken, "header")
    with pytest.raises(ModelError):
        fingerprint(broken)


def test_a_model_with_tensors_missing_is_refused(broken):
    """transformers would fill them with random numbers and warn."""
    path = broken / "model.safetensors"
    state = load_file(path)
    del state[GATE]
    save_file(state, path, metadata={"format": "pt"})
    load_both_ways(broken, "missing")


@pytest.mark.parametrize("model_type", ["llama", "mystery"])
def test_code_beside_the_weights_is_never_run(broken, tmp_path, model_type):
    witness = tmp_path / "ran"
    classes = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change_config(broken, model_type=model_type, auto_map=classes)
    (broken / "evil.py").write_text(f"open({str(witness)!r}, 'w')\n")
    if model_type == "llama":
        load_full(broken, torch.float32, CPU)
    else:
        load_both_ways(broken, "mystery|custom code")
    assert not witness.exists()


def save_tokenizer(folder: Path, *extra: str) -> Path:
    words = {word: i for i, word in enumerate(["a", "b", "c", *extra])}
    inner = Tokenizer(models.WordLevel(words, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    return folder


def test_a_draft_must_number_its_tokens_as_the_full_model_does(tmp_path):
    full, same = save_tokenizer(tmp_path / "full", "d"), save_tokenizer(tmp_path / "same", "d")
    check_same_tokenizer(full, full)
    check_same_tokenizer(full, same)
    with pytest.raises(ModelError, match=r"'d'.* a draft must share the tokenizer"):
        check_same_tokenizer(full, save_tokenizer(tmp_path / "fewer"))
    with pytest.raises(ModelError, match="2 tokens"):
        check_same_tokenizer(full, save_tokenizer(tmp_path / "swapped", "e"))
    with pytest.raises(ModelError, match="tokenizer"):
        check_same_tokenizer(full, tmp_path / "nowhere")


@pytest.mark.parametrize("own_dtype", [None, "bfloat16"])
def test_a_worker_of_all_tiers_holds_the_weights_once(toy_dirs, tmp_path, own_dtype):
    route = write_route(tmp_path, toy_dirs["qwen3"], dtype=own_dtype)
    folder = str(toy_dirs["qwen3"])
    tiers = {
        Tier.FULL: TierSource(folder),
        Tier.SLIM: TierSource(folder, str(route)),
        Tier.DRAFT: TierSource(),
    }
    engines = build_engines(EngineSpec(tiers, "float32", "cpu", 2, 128, 32))
    asked = Extend(context("s", text(1, 20)), 20, 5)
    for tier in (Tier.FULL, Tier.SLIM):
        assert len(engines[tier].extend([asked])[0]) == 5
        engines[tier].release("s")
    held = [engines[Tier.FULL].model, engines[Tier.SLIM].model]
    shared = own_dtype is None
    assert (weight_bytes(held) == weight_bytes(held[:1])) == shared
    assert engines[Tier.SLIM].vocab_size == VOCAB
