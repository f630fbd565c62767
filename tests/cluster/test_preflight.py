"""Laws of the preflight on a toy model's folder: every fault of the files is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from actors.engine.reader import Reader
from actors.engine.route import ModelError, fingerprint
from actors.lookup import Lookup
from cluster.config import Config, ConfigError, parse
from cluster.preflight import check, check_control, check_machine
from policies.placing import Node
from policies.vocabulary import PlanKind, Tier

WORDS = ["<unk>", "<s>", "</s>", *"abcdefghijklm"]
CONTEXT = 64
LAYERS = 3


def save_model(path: Path, seed: int, words: list[str] = WORDS) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy models, made once: `full`, and drafts with the same and with another tokenizer."""
    root = tmp_path_factory.mktemp("models")
    save_model(root / "full", 0)
    save_model(root / "draft", 1)
    save_model(root / "foreign", 2, [*WORDS[:4], WORDS[5], WORDS[4], *WORDS[6:]])
    return root


@pytest.fixture(autouse=True)
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that the test may damage, and an environment without keys."""
    monkeypatch.delenv("VIASERVE_API_KEYS", raising=False)
    return shutil.copytree(made, tmp_path / "models")


def config(root: Path, **sections: Any) -> Config:
    """Off by default, with a full worker; sections as in the file."""
    base: dict[str, Any] = {
        "model": {"path": str(root / "full"), "context": CONTEXT},
        "plan": {"mode": "off"},
        "pools": {"all": {"tiers": ["draft", "full"]}},
    }
    return parse({key: base.get(key, {}) | sections.get(key, {}) for key in base | sections}, "t")


def refused(config: Config, kind: type[Exception]) -> str:
    """The refusal's text, which is one line."""
    with pytest.raises(kind) as caught:
        check(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def route(root: Path, **changes: Any) -> str:
    """A route file of the full model; returns its path."""
    content = {
        "format": "viaserve-route-1",
        "model_fingerprint": fingerprint(root / "full"),
        "num_layers": LAYERS,
        "kept_layers": [0, 2],
    }
    path = root / "route.json"
    path.write_text(json.dumps(content | changes))
    return str(path)


# What a sound config becomes


def test_facts_are_what_the_files_say(root: Path):
    facts = check(config(root))
    assert facts.model_dir == root / "full"
    assert facts.fingerprint == fingerprint(root / "full")
    assert facts.vocab_size == len(WORDS)
    assert facts.eos_ids == {2}
    assert facts.api_keys == ()


def test_settings_of_the_parts_follow_the_config(root: Path):
    facts = check(
        config(
            root,
            plan={"mode": "two_tier", "gamma": 3},
            router={"max_running": 5, "step_timeout_s": 7.0},
            ingress={"max_choices": 2},
        )
    )
    assert (facts.router().max_running, facts.router().step_timeout_s) == (5, 7.0)
    assert (facts.ingress().max_choices, facts.ingress().max_context) == (2, CONTEXT)
    assert (facts.ingress().plan.kind, facts.ingress().plan.gamma) == (PlanKind.TWO_TIER, 3)
    assert facts.ingress().system_fingerprint == f"fp_{facts.fingerprint}"
    engine = facts.engine(facts.config.pools["all"])
    assert set(engine.tiers) == {Tier.DRAFT, Tier.FULL}
    assert engine.slot_tokens == CONTEXT


def test_every_file_has_a_say_in_what_ends_an_answer(root: Path):
    (root / "full" / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    path = root / "full" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 4}))
    assert check(config(root)).eos_ids == {2, 4, 5, 6}


@pytest.mark.parametrize(
    ("dtype", "has_bf16", "device", "expected"),
    [
        ("auto", True, "cpu", "bfloat16"),
        ("auto", False, "cpu", "float32"),
        ("auto", False, "cuda:0", "bfloat16"),
        ("float32", True, "cuda", "float32"),
        ("float16", True, "cpu", "float16"),
    ],
)
def test_dtype_auto_is_what_the_device_computes_fast(
    root: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, has_bf16: bool, device, expected
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    pools = {"all": {"tiers": ["draft", "full"], "device": device, "num_gpus": device != "cpu"}}
    facts = check(
        config(root, model={"path": str(root / "full"), "context": 8, "dtype": dtype}, pools=pools)
    )
    assert facts.dtype == expected


def pools_of(**changes: Any) -> Config:
    large = {"tiers": ["full", "draft"], "replicas": 2, **changes}
    return parse({"pools": {"large": large}}, "test")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_cpus": 9}, "pools.large.num_cpus: 9 is more than this machine's 8 cores"),
        ({"device": "cuda", "num_gpus": 2}, "pools: 4 GPUs are asked for"),
        ({"label_selector": {"a": "b"}}, "pools.large.label_selector:"),
        ({"resources": {"a100": 1}}, "pools.large.resources:"),
        ({"device": "cuda", "num_gpus": 4}, "pools.large.num_gpus: 4 is more than"),
        ({"num_cpus": 9, "fallback": [{"num_cpus": 10}]}, "pools.large.num_cpus: 9 is more"),
    ],
)
def test_pools_that_one_machine_cannot_host_are_refused(changes: dict[str, Any], says: str):
    with pytest.raises(ConfigError) as caught:
        check_machine(pools_of(**changes), cores=8, gpus=3)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "control", [{"label_selector": {"zone": "a"}}, {"accelerator": "L4"}], ids=["label", "card"]
)
def test_control_that_one_machine_cannot_host_is_refused(control: dict[str, Any]):
    config = parse({"pools": {"all": {"tiers": ["full"]}}, "control": control}, "test")
    with pytest.raises(ConfigError, match=r"^control: .* has no node with .*; give --address$"):
        check_machine(config, cores=8, gpus=0)


def test_control_that_no_node_of_a_cluster_can_host_is_refused():
    control = {"label_selector": {"role": "head", "zone": "!b"}}
    config = parse({"pools": {"all": {"tiers": ["full"]}}, "control": control}, "test")
    nodes = [Node({"role": "cheap"}, {}, {}), Node({"role": "head", "zone": "b"}, {}, {})]
    with pytest.raises(ConfigError, match="control: no node has these labels together"):
        check_control(config, nodes)
    with pytest.raises(ConfigError, match=r"control: no node has role=head \(there is cheap\)"):
        check_control(config, nodes[:1])
    check_control(config, [*nodes, Node({"role": "head"}, {}, {})])
    check_control(parse({"pools": {"all": {"tiers": ["full"]}}}, "test"), nodes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_cpus": 8},
        {"device": "cuda", "num_gpus": 1, "accelerator": "H100"},
        {"device": "cuda", "num_gpus": 0.5},
        {"num_cpus": 9, "fallback": [{"num_cpus": 8}]},
        {"label_selector": {"a": "b"}, "fallback": [{"num_cpus": 2}]},
        {"device": "cuda", "num_gpus": 4, "fallback": [{"device": "cpu"}]},
    ],
)
def test_pools_may_share_what_the_machine_has(changes: dict[str, Any]):
    check_machine(pools_of(**changes), cores=8, gpus=3)


def test_every_rank_counts_as_a_process_of_its_pool():
    pools = {
        "cheap": {"tiers": ["draft"]},
        "large": {"tiers": ["full"], "tp": 3, "replicas": 2, "device": "cuda", "num_gpus": 1},
    }
    split = parse({"pools": pools}, "test")
    assert split.pools["large"].processes == 6
    assert split.on_machine(14).pools["cheap"].num_cpus == 2
    check_machine(split, cores=8, gpus=6)
    with pytest.raises(ConfigError, match="6 GPUs are asked for"):
        check_machine(split, cores=8, gpus=5)


def test_a_pool_that_scales_counts_with_the_most_that_it_may_have():
    scaled = {"tiers": ["full"], "device": "cuda", "num_gpus": 1, "autoscale": {"max": 3}}
    config = parse({"pools": {"all": scaled}}, "test")
    check_machine(config, cores=8, gpus=3)
    with pytest.raises(ConfigError, match="3 GPUs are asked for"):
        check_machine(config, cores=8, gpus=2)


@pytest.mark.parametrize("routers", [1, 4])
def test_routers_share_the_slots_of_full_where_pools_scale(root: Path, routers: int):
    pool: dict[str, Any] = {"tiers": ["full"]}
    router = {"replicas": routers}
    assert check(config(root, pools={"all": pool}, router=router)).router().share is None
    pool["autoscale"] = {"max": 3}
    assert check(config(root, pools={"all": pool}, router=router)).router().share == 1 / routers


def test_more_ranks_than_key_value_heads_are_refused(root: Path):
    split = config(root, pools={"all": {"tiers": ["full"], "tp": 2}})
    assert "pools.all.tp: 2 is more than the model's 1 key/value heads" in refused(
        split, ConfigError
    )


@pytest.mark.parametrize("kind", ["model", "route"])
def test_draft_of_either_kind_is_a_source(root: Path, kind: str):
    path = route(root) if kind == "route" else str(root / "draft")
    source = check(config(root, draft={"kind": kind, "path": path})).sources[Tier.DRAFT]
    expected = (str(root / "full"), path) if kind == "route" else (path, None)
    assert (source.model_dir, source.route) == expected


def test_prompt_lookup_is_spare_where_it_goes_before_a_model_and_the_draft_where_it_is_all(
    root: Path,
):
    model = {"kind": "model", "path": str(root / "draft")}
    lengths = {"ngram_longest": 5, "ngram_shortest": 3}
    found = {
        name: (settings.lookup, settings.spare)
        for name, draft in {
            "alone": lengths,
            "before": model | lengths | {"lookup": True},
            "never": model,
        }.items()
        for settings in [check(config(root, draft=draft)).router()]
    }
    lookup = Lookup(5, 3)
    assert found == {"alone": (lookup, None), "before": (None, lookup), "never": (None, None)}


def test_balance_reaches_the_routers(root: Path):
    balance = {"moves": False, "margin": 0.4, "pressure": False, "late_factor": 0}
    settings = check(config(root, balance=balance)).router()
    assert (settings.moves, settings.pressure, settings.deadline) == (False, None, None)
    assert settings.balance.margin == 0.4


# The model's folder


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shutil.rmtree, "no config.json there"),
        (without("config.json"), "no config.json there"),
        (holding("config.json", "{"), "not a valid JSON"),
        (holding("config.json", '{"model_type": "no-such"}'), "no-such"),
        (holding("config.json", '{"model_type": "vit"}'), "no decoder-only language model"),
        (without("tokenizer.json"), "no tokenizer.json there"),
        (holding("tokenizer.json", "{"), "tokenizer.json: "),
        (holding("tokenizer.json", "{}"), "tokenizer.json: "),
        (without("model.safetensors"), "no .safetensors file there"),
        (holding("model.safetensors", ""), "cannot be read"),
        (holding("model.safetensors", "\x08\0\0\0\0\0\0\0not json"), "cannot be read"),
    ],
)
@pytest.mark.parametrize("folder", ["full", "draft"])
def test_unusable_model_is_refused_by_name(root: Path, folder: str, damage, says: str):
    damage(root / folder)
    draft = {"kind": "model", "path": str(root / "draft")}
    text = refused(config(root, draft=draft), ModelError)
    assert str(root / folder) in text
    assert says in text


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_generation_config_is_refused(root: Path, content: str):
    (root / "full" / "generation_config.json").write_text(content)
    assert "generation_config.json" in refused(config(root), ModelError)


def test_context_past_the_models_limit_is_refused(root: Path):
    model = {"path": str(root / "full"), "context": CONTEXT + 1}
    text = refused(config(root, model=model), ConfigError)
    assert text == f"model.context: {CONTEXT + 1} is more than the model's {CONTEXT}"


def test_draft_with_another_tokenizer_is_refused_with_the_reason(root: Path):
    draft = {"kind": "model", "path": str(root / "foreign")}
    text = refused(config(root, draft=draft), ModelError)
    assert str(root / "foreign") in text
    assert "differs from the full model's in 2 tokens" in text
    assert "'b': 5 there, 4 in the full model" in text


# Routes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_fingerprint": "0" * 16}, "made for model 0000000000000000, this one is"),
        ({"num_layers": 4}, "num_layers is 4, the model has 3"),
        ({"kept_layers": []}, "kept_layers must be ascending"),
        ({"kept_layers": [2, 0]}, "kept_layers must be ascending"),
        ({"kept_layers": [0, 3]}, "and below 3"),
        ({"kept_layers": "all"}, "kept_layers:"),
        ({"format": "viaserve-route-9"}, "format:"),
        ({"colour": "red"}, "colour:"),
        ({"delta": "missing.safetensors"}, "delta missing.safetensors is not beside it"),
        ({"shortlist": "missing.safetensors"}, "shortlist missing.safetensors is not beside it"),
        ({"no_attention": [1]}, "no_attention must be ascending, distinct and of kept_layers"),
        ({"weights": "int3"}, "weights:"),
    ],
)
@pytest.mark.parametrize("tier", ["slim", "draft"])
def test_route_of_another_model_is_refused(root: Path, tier: str, changes, says: str):
    path = route(root, **changes)
    section = {"slim": {"route": path}, "draft": {"kind": "route", "path": path}}[tier]
    text = refused(config(root, **{tier: section}), ModelError)
    assert path in text
    assert says in text


def test_a_cut_route_is_sound_and_its_shortlist_is_looked_into(root: Path):
    changes = {"no_attention": [0], "no_mlp": [2], "weights": "int8", "shortlist": "s.safetensors"}
    path = route(root, **changes)
    save_file({"ids": torch.tensor([0, 1, 2])}, root / "s.safetensors")
    assert check(config(root, slim={"route": path})).sources[Tier.SLIM].route == path
    save_file({"ids": torch.tensor([0, len(WORDS)])}, root / "s.safetensors")
    text = refused(config(root, slim={"route": path}), ModelError)
    assert f"distinct and below {len(WORDS)}" in text


def test_a_draft_that_reads_full_is_hosted_where_full_is(root: Path):
    reader = Reader(8, 1e-6)
    path = route(root, reads="full", reader="reader.safetensors")
    save_file(reader.state_dict(), Path(path).parent / "reader.safetensors")
    draft = {"kind": "route", "path": path}
    assert check(config(root, draft=draft)).sources[Tier.DRAFT].route == path
    apart = {"all": {"tiers": ["full"]}, "cheap": {"tiers": ["draft"]}}
    says = refused(config(root, draft=draft, pools=apart), ConfigError)
    assert "pools.cheap.tiers" in says
    assert "reads full's hidden states" in says
    assert "slim.route" in refused(config(root, slim={"route": path}), ConfigError)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), ("{", "Invalid JSON"), ("5", "Input should be")]
)
def test_route_file_that_cannot_be_read_is_refused(root: Path, content: str | None, says: str):
    path = root / "route.json"
    if content is not None:
        path.write_text(content)
    text = refused(config(root, slim={"route": str(path)}), ModelError)
    assert str(path) in text
    assert says in text


# Keys


@pytest.mark.parametrize(
    ("file", "environment", "expected"),
    [
        (None, "", ()),
        (None, "one", ("one",)),
        (None, " one , two ,,", ("one", "two")),
        ("three\n\n  four  \n", "", ("three", "four")),
        ("three\n", "one", ("one", "three")),
    ],
)
def test_keys_come_from_the_environment_and_the_file(
    root: Path, monkeypatch: pytest.MonkeyPatch, file, environment, expected
):
    monkeypatch.setenv("VIASERVE_API_KEYS", environment)
    ingress = {}
    if file is not None:
        (root / "keys").write_text(file)
        ingress = {"api_keys_file": str(root / "keys")}
    facts = check(config(root, ingress=ingress))
    assert facts.api_keys == facts.ingress().api_keys == expected


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), ("", "no key in it"), (" \n", "no key in it")]
)
def test_file_without_keys_never_opens_the_endpoint(root: Path, content: str | None, says: str):
    if content is not None:
        (root / "keys").write_text(content)
    text = refused(config(root, ingress={"api_keys_file": str(root / "keys")}), ConfigError)
    assert text.startswith(f"ingress.api_keys_file: {root / 'keys'}: {says}")
