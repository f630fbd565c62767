"""Text to token ids, and token ids to text piece by piece.

Below this module nothing knows text. It knows neither HTTP nor requests.
"""

from __future__ import annotations

import codecs
import json
from typing import Any, Protocol

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from actors.ingress.errors import invalid

_BYTE_OF_CHAR = {char: byte for byte, char in bytes_to_unicode().items()}


class StreamDecoder(Protocol):
    """Text of a growing list of ids. All pieces joined equal the decoding of all ids."""

    def push(self, token: int) -> str:
        """The text that `token` settles; text that a later token could change is held."""
        ...

    def flush(self) -> str:
        """What is still held, now that no token follows."""
        ...


class TextCodec:
    """A fast Hugging Face tokenizer: prompts in, stream decoders out."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        self._special = frozenset(token for token, word in added.items() if word.special)
        decoder = json.loads(self._backend.to_str())["decoder"] or {}
        self._byte_level = decoder.get("type") == "ByteLevel"
        self._byte_tokens = _byte_fallback_tokens(self._backend, decoder)
        self._bytes: dict[int, bytes] = {}
        self._longest = max((len(word) for word in tokenizer.get_vocab()), default=1)

    @classmethod
    def load(cls, directory: str) -> TextCodec:
        """From a model directory; code in it is not run."""
        return cls(AutoTokenizer.from_pretrained(directory, trust_remote_code=False))

    def serialised(self) -> tuple[str, int | None]:
        """The tokenizer as JSON text, and its end-of-sequence id."""
        end: Any = self._tokenizer.eos_token_id
        return self._backend.to_str(), end

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`; special tokens that are spelled out in it become their own ids."""
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def least_tokens(self, num_chars: int) -> int:
        """A text of so many characters has at least so many tokens: known without encoding
        it, which takes seconds for megabytes and holds up every other request."""
        return num_chars // self._longest

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Ids of the conversation up to the start of the answer. Raises ApiError 400."""
        if self._tokenizer.chat_template is None:
            raise invalid("This model has no chat template; use /v1/completions.", "messages")
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as exc:
            reason = str(exc)[:200]
            raise invalid(
                f"The chat template rejects these messages: {reason}", "messages"
            ) from exc
        return self.encode(str(text), add_special_tokens=False)

    def stream_decoder(self) -> StreamDecoder:
        """A fresh decoder for one answer."""
        return ByteLevelDecoder(self) if self._byte_level else WindowDecoder(self)

    def decode(self, tokens: list[int]) -> str:
        """The text of `tokens` without special tokens."""
        return self._backend.decode(tokens, skip_special_tokens=True)

    def spell(self, token: int) -> tuple[str, bytes]:
        """A token by itself, special or not: its text, and its bytes where it is part of a
        character (whose text is then a replacement character)."""
        if self._byte_level and (spelled := self.token_bytes(token)):
            return spelled.decode(errors="replace"), spelled
        text = self._backend.decode([token], skip_special_tokens=False)
        return text, text.encode()

    def is_special(self, token: int) -> bool:
        """True for a token that is never shown."""
        return token in self._special

    def is_byte(self, token: int) -> bool:
        """True for a byte-fallback token, whose text depends on its neighbours."""
        return token in self._byte_tokens

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of a token, of a byte-level vocabulary only; special and unknown: none."""
        known = self._bytes.get(token)
        if known is None:
            word = None if token in self._special else self._backend.id_to_token(token)
            known = self._bytes[token] = _byte_level_bytes(word or "")
        return known


def _byte_level_bytes(word: str) -> bytes:
    # An added token is stored as plain text, which may use characters outside the alphabet.
    if all(char in _BYTE_OF_CHAR for char in word):
        return bytes(_BYTE_OF_CHAR[char] for char in word)
    return word.encode()


def _byte_fallback_tokens(backend: Tokenizer, decoder: dict[str, Any]) -> frozenset[int]:
    stages = decoder.get("decoders", [decoder])
    if not any(stage.get("type") == "ByteFallback" for stage in stages):
        return frozenset()
    ids = (backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(token for token in ids if token is not None)


class ByteLevelDecoder:
    """Byte-level vocabularies: the bytes of the tokens joined, read as UTF-8."""

    def __init__(self, codec: TextCodec) -> None:
        self._token_bytes = codec.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """See StreamDecoder."""
        return self._utf8.decode(self._token_bytes(token))

    def flush(self) -> str:
        """See StreamDecoder."""
        return self._utf8.decode(b"", True)


class WindowDecoder:
    """Any other vocabulary: decode the unsettled ids with the last settled one before them.

    One id of context tells a decoder that the text has begun. A run of byte-fallback tokens
    settles only when it ends: one bad byte turns the whole run into replacement characters,
    which is where tokenizers' DecodeStream contradicts what it has already given out.
    """

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._window: list[int] = []
        self._num_shown = 0

    def push(self, token: int) -> str:
        """See StreamDecoder."""
        if self._codec.is_special(token):
            return ""
        self._window.append(token)
        if self._codec.is_byte(token):
            return ""
        text = self._codec.decode(self._window)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        piece = text[self._num_shown :]
        self._window = [token]
        self._num_shown = len(self._codec.decode(self._window))
        return piece

    def flush(self) -> str:
        """See StreamDecoder."""
        return self._codec.decode(self._window)[self._num_shown :]
