"""Laws of the grammar mask: it depends on the answer so far alone, and follows every retreat."""

import json
import random

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from actors.engine import grammar as grammar_module
from actors.engine.grammar import GrammarError
from policies.vocabulary import SamplingParams
from tests.engine.grammars import (
    COUNT,
    NUMBERS,
    PERSON,
    SCHEMAS,
    TOY_STOP,
    compiler_of,
    grammars_of,
    text_of,
    toy_tokenizer,
)
from tests.engine.toys import VOCAB, context

PROMPT = [5, 6, 7]
TOY = toy_tokenizer()
STOPS = frozenset({TOY_STOP, 0})
# Reaches a bound on the size of the lexer's states within a few tokens.
ENDLESS = {"type": "string", "pattern": "^.*[aeiou].{60}$"}


@pytest.fixture(scope="module")
def real(default_model_dir):
    return AutoTokenizer.from_pretrained(default_model_dir)


def session(schema, output=(), name="s", stops=STOPS):
    """A session under the schema, `output` behind its prompt."""
    params = SamplingParams(grammar=text_of(schema))
    return context(name, [*PROMPT, *output], params, prompt_len=len(PROMPT), stop_ids=stops)


def row_after(grammars, schema, output, vocab=VOCAB, stops=STOPS, name="s"):
    """The ids allowed behind `output`."""
    asked = session(schema, output, name, stops)
    [row] = grammars.allowed(asked, len(PROMPT) + len(output), 1, vocab)
    return np.flatnonzero(row).tolist()


def walk(grammars, schema, rng, vocab=VOCAB, stops=STOPS, length=400, name="walk"):
    """Any allowed id after another, up to a stop id; a little steered, so that it ends."""
    output: list[int] = []
    while len(output) < length:
        ids = row_after(grammars, schema, output, vocab, stops, name)
        ends = [i for i in ids if i in stops]
        output.append(ends[0] if ends and rng.random() < 0.5 else rng.choice(ids))
        if output[-1] in stops:
            return output
    return output


@pytest.mark.parametrize("schema", SCHEMAS)
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), max_size=12),
)
@settings(max_examples=25)
def test_a_mask_depends_on_the_answer_alone(schema, seed, steps):
    """Whatever was asked before: a longer answer, another one, a forbidden one; or a release."""
    rng = random.Random(seed)
    grammars = grammars_of(TOY)
    answer = walk(grammars, schema, rng)[:-1]
    for share, forbidden, released in steps:
        output = answer[: round(share * len(answer))]
        if forbidden:
            output += [rng.randrange(VOCAB) for _ in range(3)]
        if released:
            grammars.release("s")
        fresh = row_after(grammars_of(TOY), schema, output)
        assert row_after(grammars, schema, output) == fresh


@pytest.mark.parametrize("schema", SCHEMAS)
@given(seed=st.integers(0, 2**32), num_drafted=st.integers(0, 9))
@settings(max_examples=25)
def test_a_blocks_rows_are_those_of_its_places_one_by_one(schema, seed, num_drafted):
    rng = random.Random(seed)
    grammars = grammars_of(TOY)
    answer = walk(grammars, schema, rng)
    start = rng.randrange(len(answer))
    block = [*answer[start : start + num_drafted], rng.randrange(VOCAB)]
    asked = session(schema, [*answer[:start], *block], name="block")
    rows = grammars.allowed(asked, len(PROMPT) + start, len(block) + 1, VOCAB)
    assert rows.shape == (len(block) + 1, VOCAB)
    for i, row in enumerate(rows):
        alone = row_after(grammars_of(TOY), schema, [*answer[:start], *block[:i]])
        assert np.flatnonzero(row).tolist() == alone


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_allowed_ids_are_chosen_the_answer_is_valid(real, schema, seed):
    end = real.eos_token_id
    answer = walk(grammars_of(real), schema, random.Random(seed), len(real), frozenset({end}), 2000)
    if answer[-1] == end:
        jsonschema.validate(json.loads(real.decode(answer[:-1])), schema)


@given(seed=st.integers(0, 2**32), schema=st.sampled_from(SCHEMAS))
@settings(max_examples=30)
def test_a_toy_answer_that_ends_is_valid(seed, schema):
    answer = walk(grammars_of(TOY), schema, random.Random(seed), length=2000)
    if answer[-1] in STOPS:
        jsonschema.validate(json.loads(TOY.decode(answer[:-1])), schema)


def test_a_complete_answer_leaves_the_stop_ids_alone(real):
    answer = real.encode('{"name": "Bob", "age": 42, "tags": ["red", "blue"]}')
    grammars = grammars_of(real)
    for stops in ({real.eos_token_id}, {0, 2, 9}, {9}):
        row = row_after(grammars, PERSON, answer, len(real), frozenset(stops))
        assert set(row) - {real.eos_token_id} == set(stops) - {real.eos_token_id}


def test_where_an_answer_may_end_or_go_on_both_are_allowed(real):
    end = real.eos_token_id
    row = row_after(grammars_of(real), COUNT, real.encode("12"), len(real), frozenset({end}))
    assert {end, *real.encode("3")} <= set(row)
    unfinished = row_after(
        grammars_of(real), PERSON, real.encode('{"name"'), len(real), frozenset({end, 9})
    )
    assert not {end, 9} & set(unfinished)


@pytest.mark.parametrize("stops", [frozenset(), frozenset({VOCAB + 7})])
def test_without_a_stop_id_of_the_vocabulary_the_end_is_the_tokenizers(stops):
    answer = TOY.encode("12", add_special_tokens=False)
    grammars = grammars_of(TOY)
    assert TOY_STOP in row_after(grammars, COUNT, answer, stops=stops)
    for more in range(1, 4):  # `ignore_eos`: it goes on, and there is nothing else to say
        assert row_after(grammars, COUNT, [*answer, *[TOY_STOP] * more], stops=stops) == [TOY_STOP]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("vocab", [VOCAB - 30, VOCAB + 30])
def test_a_model_may_pad_or_cut_the_vocabulary(schema, vocab):
    padded = row_after(grammars_of(TOY), schema, [], vocab=vocab)
    assert padded == [i for i in row_after(grammars_of(TOY), schema, []) if i < vocab] or (
        padded == sorted(STOPS)
    )


UNSUPPORTED = {
    "not": ({"not": {"type": "string"}}, '"not"'),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 2}}, '"if"'),
    "unique": ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
    "type": ({"type": "foo"}, "foo"),
    "format": ({"type": "string", "format": "xyz"}, "xyz"),
    "one of": ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
    "look-ahead": ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    "pattern": ({"type": "string", "pattern": "("}, "regex"),
    "missing reference": ({"$ref": "#/$defs/q"}, "/$defs/q"),
    "http reference": ({"$ref": "http://127.0.0.1:9/x.json"}, "fetch"),
    "file reference": ({"$ref": "file:///etc/passwd"}, "fetch"),
    "empty range": ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
    "itself": ({"$ref": "#"}, "no answer"),
    "lenient": ({"not": {}, "x-guidance": {"lenient": True}}, '"not"'),
    "large": ({"allOf": [{"anyOf": [{"const": i}, {"const": -i}]} for i in range(40)]}, ""),
    "deep": (json.loads('{"items":' * 150 + "{}" + "}" * 150), "recursion"),
}


@pytest.mark.parametrize(("schema", "named"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_is_unsupported_is_named_in_one_line(schema, named):
    with pytest.raises(GrammarError) as caught:
        compiler_of(TOY).matcher(text_of(schema))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_white_space_ends(real):
    grammars, end = grammars_of(real), frozenset({real.eos_token_id})
    output = real.encode("{" + "\n" * 20)
    ids = row_after(grammars, PERSON, output, len(real), end)
    assert ids
    assert not any(real.decode([i])[0].isspace() for i in ids)


def test_a_session_past_the_limits_fails_and_takes_nobody_with_it(real):
    grammars, rng, vocab = grammars_of(real), random.Random(1), len(real)
    before = row_after(grammars, ENDLESS, [], vocab)
    other = row_after(grammars, NUMBERS, [], vocab, name="other")

    def write_on(output):
        while len(output) < 100:
            ids = row_after(grammars, ENDLESS, output, vocab)
            output.append(rng.choice([i for i in ids if real.decode([i]).isalpha()]))

    with pytest.raises(GrammarError):
        write_on(real.encode('"'))
    assert row_after(grammars, NUMBERS, [], vocab, name="other") == other
    assert row_after(grammars, ENDLESS, [], vocab, name="new") == before
    assert len(grammars) == 2


def test_only_the_latest_grammars_are_kept():
    compiler = compiler_of(TOY)
    for i in range(3 * grammar_module.MAX_COMPILED):
        compiler.matcher(text_of({"const": i}))
        compiler.matcher(text_of(PERSON))
    assert len(compiler._compiled) == grammar_module.MAX_COMPILED
    assert text_of(PERSON) in compiler._compiled


def test_the_tokenizer_is_loaded_when_a_grammar_is_first_asked_for():
    loads: list[int] = []

    def load():
        loads.append(1)
        return compiler_of(TOY)

    grammars = grammar_module.Grammars(load)
    grammars.release("s")
    assert loads == []
    for name in ("a", "b"):
        row_after(grammars, COUNT, [], name=name)
    assert (loads, len(grammars)) == ([1], 2)


def test_a_released_session_leaves_nothing():
    grammars = grammars_of(TOY)
    for name in ("a", "b"):
        row_after(grammars, PERSON, [], name=name)
    grammars.release("a")
    grammars.release("a")
    assert len(grammars) == 1
    grammars.release("b")
    assert len(grammars) == 0
