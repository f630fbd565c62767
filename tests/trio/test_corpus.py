"""Laws of self-written text: lockstep is plain decoding, and a job that was killed goes on."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actors.engine.route import ModelError, fingerprint
from cluster.trio.teacher import load_head
from cluster.trio.text.corpus import Corpus
from cluster.trio.text.lockstep import ANSWER, GIVEN, QUESTION, Recipe, write_chats
from cluster.trio.text.turns import Turns, turns_of
from cluster.trio.text.write import CorpusJob, write_corpus
from tests.engine.toys import ARCHITECTURES, VOCAB, save_toy, save_words
from tests.trio.toys import lockstep_model

COLD = Recipe(tokens=60, temperatures=(0.0,), question_temperature=0.0)
TURNS = Turns((1, 10), (11, 12), (2, 13), frozenset({2}))
OPENERS = [[20, 21], [22], []]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lockstep_at_temperature_zero_is_a_plain_forward_of_each_chat(architecture, tmp_path):
    folder = save_toy(tmp_path, architecture)
    written = write_chats(lockstep_model(folder), TURNS, OPENERS, COLD, chats=5, seed=1)
    stock = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for ids, writers, hidden in zip(written.ids, written.writers, written.hidden, strict=True):
        with torch.inference_mode():
            out = stock(ids[None].long(), output_hidden_states=True)
        torch.testing.assert_close(hidden, out.hidden_states[-1][0], atol=2e-4, rtol=1e-3)
        said = writers[1:] != GIVEN
        assert said.any()
        assert torch.equal(out.logits[0, :-1].argmax(-1)[said], ids[1:][said].long())


def test_a_chat_follows_the_template(tmp_path):
    model = lockstep_model(save_toy(tmp_path, "llama"))
    recipe = Recipe(tokens=80, longest_question=5, longest_answer=7)
    written = write_chats(model, TURNS, OPENERS, recipe, chats=4, seed=2)
    for ids, writers in zip(written.ids.tolist(), written.writers.tolist(), strict=True):
        assert ids[:2] == [1, 10]
        assert set(writers) == {ANSWER, QUESTION, GIVEN}
        for at in range(1, 80):
            if (writers[at - 1], writers[at]) == (GIVEN, ANSWER):
                assert ids[at - 2 : at] == [11, 12]
        longest = max(len(run) for run in "".join(map(str, writers)).replace("0", "1").split("1"))
        assert longest <= 7


def test_the_same_seed_writes_the_same_chats(tmp_path):
    model = lockstep_model(save_toy(tmp_path, "llama"))
    one, same, other = (
        write_chats(model, TURNS, OPENERS, Recipe(tokens=40), 4, seed).ids for seed in (7, 7, 8)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def job(model_dir, folder, shards: int, **more) -> CorpusJob:
    what = {"openers": ("t5 t6", "t7"), "chats": 3, "recipe": Recipe(tokens=20), "seed": 4}
    what |= {"dtype": "float32", "device": "cpu"} | more
    return CorpusJob(model_dir, folder, shards=shards, **what)


def test_a_corpus_goes_on_where_it_was_ended(idle_dir, tmp_path):
    write_corpus(job(idle_dir, tmp_path / "whole", 3))
    write_corpus(job(idle_dir, tmp_path / "broken", 1))
    (tmp_path / "broken" / ".shard-0001.safetensors.part").write_bytes(b"torn")
    before = (tmp_path / "broken" / "shard-0000.safetensors").stat().st_mtime_ns
    write_corpus(job(idle_dir, tmp_path / "broken", 3))
    assert (tmp_path / "broken" / "shard-0000.safetensors").stat().st_mtime_ns == before
    for shard in range(3):
        name = f"shard-{shard:04d}.safetensors"
        whole, broken = (load_file(tmp_path / f / name) for f in ("whole", "broken"))
        assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_a_corpus_of_another_recipe_is_refused(idle_dir, tmp_path):
    write_corpus(job(idle_dir, tmp_path, 1))
    with pytest.raises(ModelError, match="was begun with seed 4, not 5"):
        write_corpus(job(idle_dir, tmp_path, 1, seed=5))


def test_a_corpus_knows_its_model(corpus_dir, idle_dir, tmp_path):
    Corpus(corpus_dir).check(fingerprint(idle_dir))
    with pytest.raises(ModelError, match="written by model"):
        Corpus(corpus_dir).check("another")
    with pytest.raises(ModelError, match=r"no recipe\.json there"):
        Corpus(tmp_path).check("any")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_teachers_head_gives_the_models_logits(architecture, tmp_path):
    folder = save_toy(tmp_path, architecture)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        out = model(torch.arange(3, 40)[None], output_hidden_states=True)
    head = load_head(folder, torch.float32)
    torch.testing.assert_close(head.logits(out.hidden_states[-1]), out.logits)
    few = torch.tensor([5, 9, VOCAB - 1])
    torch.testing.assert_close(head.of(few).logits(out.hidden_states[-1]), out.logits[..., few])


@pytest.mark.parametrize(
    ("template", "begins", "is_chat"),
    [
        ("{% for m in messages %}{{ m['content'] }} t5 {% endfor %}", (1,), True),
        ("{% for m in messages %}t7 {{ m['content'] }} t5 {% endfor %}", (7,), True),
        ("{% for m in messages %}{{ m['content'] }} {% endfor %}", (1,), False),
        (None, (1,), False),
    ],
)
def test_every_text_begins_with_a_token(tmp_path, template, begins, is_chat):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_words(tmp_path))
    tokenizer.chat_template = template
    turns = turns_of(tokenizer, [2])
    assert (turns.opening, turns.chat) == (begins, is_chat)


def test_a_tokenizer_without_a_first_token_is_refused(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_words(tmp_path))
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no bos and no eos"):
        turns_of(tokenizer, [2])


def test_turns_are_what_the_template_puts_between(default_model_dir):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(default_model_dir)
    turns = turns_of(tokenizer, [2])

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    chat = [
        {"role": "user", "content": "How high is Etna?"},
        {"role": "assistant", "content": "Over 3 km."},
        {"role": "user", "content": "Thanks"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    first = turns.opening + ids("How high is Etna?") + turns.to_answer
    assert ids(text) == (
        first + ids("Over 3 km.") + turns.to_question + ids("Thanks") + turns.to_answer
    )
    assert turns.chat


def test_without_a_template_there_are_no_turns(idle_dir):
    from transformers import AutoTokenizer

    turns = turns_of(AutoTokenizer.from_pretrained(idle_dir), [2])
    assert turns == Turns((1,), (), (), frozenset())
    assert not turns.chat
