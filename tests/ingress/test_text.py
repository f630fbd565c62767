"""Laws of detokenisation and of stop strings."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from actors.ingress.errors import ApiError
from actors.ingress.stops import StopMatcher
from actors.ingress.text import TextCodec
from tests.ingress.conftest import byte_level_tokenizer

BYTE_LEVEL = TextCodec(byte_level_tokenizer())


def byte_fallback_codec() -> TextCodec:
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for word in ("▁", "▁the", "fox", "▁▁", "\N{REPLACEMENT CHARACTER}", "é", "."):
        vocab[word] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<eos>", special=True)])
    return TextCodec(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


BYTE_FALLBACK = byte_fallback_codec()
# Bytes that begin, continue or break a UTF-8 sequence, and some words.
AWKWARD = [0x61, 0x82, 0x80, 0xAC, 0x9F, 0xC3, 0xA9, 0xE2, 0xED, 0xEF, 0xF0, 0xFF, *range(256, 264)]


def streamed(codec: TextCodec, tokens: list[int]) -> list[str]:
    decoder = codec.stream_decoder()
    return [*(decoder.push(token) for token in tokens), decoder.flush()]


@given(st.lists(st.integers(0, 340), max_size=12))
def test_streamed_byte_level_text_equals_the_full_decoding(tokens):
    assert "".join(streamed(BYTE_LEVEL, tokens)) == BYTE_LEVEL.decode(tokens)


@given(st.lists(st.sampled_from(AWKWARD), max_size=12))
@example([0xE2, 0x82, 0xAC, 0xC3, 0xA9, 0xFF, 257])
def test_streamed_byte_fallback_text_equals_the_full_decoding(tokens):
    assert "".join(streamed(BYTE_FALLBACK, tokens)) == BYTE_FALLBACK.decode(tokens)


@pytest.mark.parametrize("text", ["🦊", "a🦊b", "日本", "é" * 3, "tool→call x", " lead", "\n\n"])
def test_a_character_split_over_tokens_is_shown_once_it_is_whole(text):
    pieces = streamed(BYTE_LEVEL, BYTE_LEVEL.encode(text))
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_an_unfinished_character_is_flushed_as_the_full_decoding_shows_it():
    tokens = BYTE_LEVEL.encode("🦊")[:-1]
    assert streamed(BYTE_LEVEL, tokens)[-1] == BYTE_LEVEL.decode(tokens) != ""


def test_special_tokens_spelled_in_text_become_their_ids_and_are_never_shown():
    tokens = BYTE_LEVEL.encode("a<|im_end|>b")
    assert len(tokens) == 3
    assert "".join(streamed(BYTE_LEVEL, tokens)) == "ab"


def test_a_conversation_is_rendered_up_to_the_answer():
    tokens = BYTE_LEVEL.chat([{"role": "user", "content": "hi"}])
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokens == BYTE_LEVEL.encode(rendered)


def test_a_model_without_a_chat_template_says_what_to_use():
    with pytest.raises(ApiError, match="/v1/completions"):
        BYTE_FALLBACK.chat([{"role": "user", "content": "hi"}])


def test_a_template_that_rejects_the_messages_is_the_clients_fault():
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ApiError, match="roles must alternate"):
        TextCodec(tokenizer).chat([{"role": "user", "content": "hi"}])


def test_a_codec_is_loaded_from_a_directory(tmp_path):
    byte_level_tokenizer().save_pretrained(tmp_path)
    codec = TextCodec.load(str(tmp_path))
    assert codec.encode("hello") == BYTE_LEVEL.encode("hello")
    assert codec.chat([{"role": "user", "content": "x"}])


def cut_naively(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the stop string that is complete first; the longest of those."""
    ends = [(found + len(stop), -len(stop)) for stop in stops if (found := text.find(stop)) >= 0]
    if not ends:
        return text, False
    end, minus_len = min(ends)
    return text[: end + minus_len], True


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=3).map(tuple),
)
@example(["xabc", "d"], ("abcd", "bc"))
@example(["aab", "aaab"], ("aaab",))
def test_the_cut_is_before_the_first_complete_stop_string_however_text_is_split(pieces, stops):
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        shown += matcher.push(piece)
        if matcher.matched:
            break
    shown += matcher.flush()
    assert (shown, matcher.matched) == cut_naively("".join(pieces), stops)


@given(st.lists(st.text("ab", max_size=3), max_size=8), st.text("ab", min_size=1, max_size=5))
def test_only_what_may_start_a_stop_string_is_held(pieces, stop):
    matcher = StopMatcher((stop,))
    text = shown = ""
    for piece in pieces:
        text += piece
        shown += matcher.push(piece)
        if matcher.matched:
            return
        held = text.removeprefix(shown)
        assert stop.startswith(held)
        assert len(held) < len(stop)
