"""A byte-level tokenizer for the toys' 256 ids, and schemas to hold answers to."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from actors.engine.grammar import GrammarCompiler, Grammars
from tests.engine.toys import VOCAB

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE: dict[str, Any] = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "leaf": {"type": "boolean"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["leaf", "next"],
            "additionalProperties": False,
        }
    },
}
NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}, "maxItems": 4}
COUNT: dict[str, Any] = {"type": "integer"}
SCHEMAS = (PERSON, TREE, NUMBERS, COUNT)
TOY_STOP = 2
_MERGES = [("{", '"'), ('"', ":"), ('"', ","), ("}", "}"), (" ", '"'), ("a", "g"), ("ag", "e")]


def text_of(schema: dict[str, Any]) -> str:
    """The grammar of a schema."""
    return json.dumps(schema, separators=(",", ":"))


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Ids 0 to 2 are special, 2 ends; then single bytes and some pairs of them."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(part.replace(" ", "Ġ") for part in pair) for pair in _MERGES]
    words = [*bytes_[: VOCAB - 3 - len(merges)], *("".join(pair) for pair in merges)]
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2} | {word: 3 + i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[(a, b) for a, b in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def compiler_of(tokenizer: PreTrainedTokenizerFast) -> GrammarCompiler:
    """A compiler for a tokenizer."""
    end: Any = tokenizer.eos_token_id
    return GrammarCompiler(tokenizer.backend_tokenizer.to_str(), end)


def grammars_of(tokenizer: PreTrainedTokenizerFast) -> Grammars:
    """A worker's, with nothing compiled."""
    compiler = compiler_of(tokenizer)
    return Grammars(lambda: compiler)
