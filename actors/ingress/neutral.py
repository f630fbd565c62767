"""Parameters of OpenAI and vLLM that are not served, and the values that ask for nothing.

Such a value is dropped; any other value of such a parameter is an error. Clients and
benchmarks send many of these as a matter of course.
"""

from __future__ import annotations

from typing import Any

from actors.ingress.errors import invalid

IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "user",
    }
)

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "include_stop_str_in_output": (None, False),
    "min_tokens": (None, 0),
    "modalities": (None, ["text"]),
    "moderation": (None,),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "service_tier": (None, "auto", "default"),
    "skip_special_tokens": (None, True),
    "store": (None, False),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}

# What OpenAI's client sends back when a served answer becomes part of the next prompt.
NEUTRAL_OF_MESSAGE: dict[str, tuple[Any, ...]] = {
    "annotations": (None, []),
    "audio": (None,),
    "function_call": (None,),
    "refusal": (None,),
    "tool_calls": (None, []),
}


def drop_neutral(fields: dict[str, Any]) -> None:
    """Take the unserved parameters out of a request body; raise ApiError where one asks."""
    for name in IGNORED & fields.keys():
        del fields[name]
    _drop(fields, NEUTRAL, "")


def drop_neutral_of_message(fields: dict[str, Any], index: int) -> None:
    """The same for the chat message at `index`."""
    _drop(fields, NEUTRAL_OF_MESSAGE, f"messages.{index}.")


def _drop(fields: dict[str, Any], table: dict[str, tuple[Any, ...]], prefix: str) -> None:
    for name in fields.keys() & table.keys():
        value = fields.pop(name)
        # By type too: JSON's 1 is not true, 0 is not false.
        if not any(type(value) is type(accepted) and value == accepted for accepted in table[name]):
            message = f"'{prefix}{name}' with this value is not supported; leave it out."
            raise invalid(message, prefix + name, "unsupported_parameter")
