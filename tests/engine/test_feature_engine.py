"""Laws of a draft that reads full's hidden states: what a plain forward over the same inputs
chooses, whatever was cached, cut or unseen before."""

import pytest
import torch
from safetensors.torch import save_file

from actors.engine.build import EngineSpec, TierSource, build_engines, checked_route
from actors.engine.loader import load_full, load_sliced
from actors.engine.reader import Reader, load_reader
from actors.engine.route import ModelError, Route, fingerprint
from actors.engine.seam import Extend, Propose
from policies.vocabulary import SamplingParams, Tier
from tests.engine.toys import CPU, context, text

LEAN = ("llama", "qwen3")
KEPT = (0, 3)


@pytest.fixture(params=LEAN)
def architecture(request) -> str:
    return request.param


@pytest.fixture
def route_path(architecture, toy_dirs, tmp_path):
    return save_reading_route(tmp_path, toy_dirs[architecture])


def save_reading_route(folder, model_dir, **more):
    torch.manual_seed(7)
    width = load_full(model_dir, torch.float32, CPU).config.hidden_size
    reader = Reader(width, 1e-6)
    torch.nn.init.normal_(reader.features.weight, std=0.2)
    save_file(reader.state_dict(), folder / "reader.safetensors")
    fields = {"reads": "full", "reader": "reader.safetensors"} | more
    route = Route(
        model_fingerprint=fingerprint(model_dir), num_layers=4, kept_layers=KEPT, **fields
    )
    path = folder / "draft.json"
    path.write_text(route.model_dump_json(exclude_none=True))
    return path


def engines_of(model_dir, route_path, **more):
    source = TierSource(str(model_dir), str(route_path))
    tiers = {Tier.FULL: TierSource(str(model_dir)), Tier.DRAFT: source}
    made = build_engines(EngineSpec(tiers, "float32", "cpu", 4, 256, 64))
    return made[Tier.FULL], made[Tier.DRAFT]


class Plain:
    """The same draft through the stock classes, without a cache."""

    def __init__(self, model_dir, route_path):
        cut = checked_route(model_dir, route_path)
        self.full = load_full(model_dir, torch.float32, CPU)
        self.draft = load_sliced(model_dir, cut.route, torch.float32, CPU)
        for model in (self.full, self.draft):
            model.set_attn_implementation("eager")
        width, eps = self.full.config.hidden_size, self.full.config.rms_norm_eps
        self.reader = load_reader(cut.reader, width, eps, torch.float32, CPU)

    @torch.inference_mode()
    def propose(self, tokens, num_seen, num_tokens):
        """Greedy ids behind `tokens`, where full has been on the first `num_seen`."""
        ids, made = list(tokens), []
        seen = torch.tensor([ids[:num_seen]])
        features = list(self.full.model(input_ids=seen).last_hidden_state[0])
        while len(made) < num_tokens:
            while len(features) < len(ids):
                features.append(self._states(ids[: len(features) + 1], features)[-1])
            made.append(int(self.full.lm_head(features[-1]).argmax()))
            ids.append(made[-1])
        return made

    def _states(self, ids, features):
        before = torch.stack([torch.zeros_like(features[0]), *features[: len(ids) - 1]])
        embedded = self.draft.model.embed_tokens(torch.tensor(ids))
        x = self.reader(embedded, before)[None]
        return self.draft.model(inputs_embeds=x, use_cache=False).last_hidden_state[0]


def greedy(name, tokens):
    return context(name, tokens, SamplingParams(temperature=0.0))


def test_it_proposes_what_a_plain_forward_chooses(architecture, toy_dirs, route_path):
    full, draft = engines_of(toy_dirs[architecture], route_path)
    plain = Plain(toy_dirs[architecture], route_path)
    tokens = text(3, 41)
    asked = greedy("s", tokens)
    full.extend([Extend(asked, 40, 1)])
    [made] = draft.propose([Propose(asked, 5)])
    assert made == plain.propose(tokens, 40, 5)


def test_rounds_go_on_as_if_nothing_were_cached(architecture, toy_dirs, route_path):
    """Blocks partly kept, tokens of another tier in between, and everything seen by full."""
    full, draft = engines_of(toy_dirs[architecture], route_path)
    plain = Plain(toy_dirs[architecture], route_path)
    asked = greedy("s", text(4, 30))
    full.extend([Extend(asked, 29, 1)])
    for kept, others in ((2, 0), (0, 1), (4, 2), (1, 3)):
        seen = full.num_cached("s")
        before = list(asked.tokens)
        [made] = draft.propose([Propose(asked, 4)])
        assert made == plain.propose(before, seen, 4)
        # Somebody keeps a part of it and puts its own behind; full has not been there.
        del asked.tokens[len(before) + kept :]
        draft.truncate("s", len(asked.tokens))
        asked.tokens += text(len(before), 1 + others)
        before = list(asked.tokens)
        [made] = draft.propose([Propose(asked, 3)])
        assert made == plain.propose(before, seen, 3)
        del asked.tokens[len(before) :]
        draft.truncate("s", len(before))
        full.extend([Extend(asked, len(before) - 1, 1)])


def test_company_changes_nothing(architecture, toy_dirs, route_path):
    full, draft = engines_of(toy_dirs[architecture], route_path)
    plain = Plain(toy_dirs[architecture], route_path)
    texts = [text(n, n) for n in (5, 33, 70)]
    asked = [greedy(f"s{i}", tokens) for i, tokens in enumerate(texts)]
    # Of one of them full has seen a part only.
    upto = [4, 30, 69]
    full.extend([Extend(c, n, 1) for c, n in zip(asked, upto, strict=True)])
    made = draft.propose([Propose(c, 4) for c in asked])
    expected = [plain.propose(t, n, 4) for t, n in zip(texts, upto, strict=True)]
    assert made == expected


def test_without_full_there_is_no_proposal(toy_dirs, tmp_path):
    model_dir = toy_dirs["llama"]
    full, draft = engines_of(model_dir, save_reading_route(tmp_path, model_dir))
    asked = greedy("s", text(3, 12))
    assert draft.propose([Propose(asked, 5)]) == [[]]
    full.extend([Extend(asked, 11, 1)])
    assert len(draft.propose([Propose(asked, 5)])[0]) == 5
    full.release("s")
    assert draft.propose([Propose(asked, 5)]) == [[]]


def test_a_reader_of_another_width_is_refused(toy_dirs, tmp_path):
    path = save_reading_route(tmp_path, toy_dirs["llama"])
    save_file(Reader(8, 1e-6).state_dict(), tmp_path / "reader.safetensors")
    with pytest.raises(ModelError, match=r"reader .*reader\.safetensors"):
        checked_route(toy_dirs["llama"], path)


def test_reads_needs_a_reader(toy_dirs, tmp_path):
    path = save_reading_route(tmp_path, toy_dirs["llama"], reader=None)
    with pytest.raises(ModelError, match="reads and reader go together"):
        checked_route(toy_dirs["llama"], path)


def test_kinds_without_lean_layers_are_refused(toy_dirs, tmp_path):
    path = save_reading_route(tmp_path, toy_dirs["gemma2"])
    with pytest.raises(ModelError, match="gemma2 has no such drafts"):
        checked_route(toy_dirs["gemma2"], path)
