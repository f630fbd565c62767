"""The ingress on written answers behind real HTTP, and the page on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from actors.ingress.app import create_app
from actors.ingress.settings import IngressSettings
from actors.ingress.text import TextCodec
from policies.lossy import LossyLimits
from policies.vocabulary import Plan, PlanKind
from tests.ingress.conftest import byte_level_tokenizer
from tests.playground.backend import PageBackend, texts_of
from tests.playground.browser import Page
from tests.playground.site import site


@pytest.fixture(scope="session")
def codec() -> TextCodec:
    return TextCodec(byte_level_tokenizer())


@pytest.fixture(scope="session")
def eos(codec) -> int:
    [token] = codec.encode("<|im_end|>")
    return token


@pytest.fixture(scope="session")
def settings(eos) -> IngressSettings:
    return IngressSettings(
        model_name="org/tiny",
        max_context=4096,
        vocab_size=331,
        eos_ids=frozenset({eos}),
        plan=Plan(PlanKind.THREE_TIER, gamma=4, block=8),
        lossy=LossyLimits(),
    )


@pytest.fixture
def backend(codec, eos) -> PageBackend:
    return PageBackend(texts_of(codec, eos))


@pytest.fixture
def open_site(settings, codec, backend) -> Iterator[Callable[..., str]]:
    """Serve the backend, with other settings if need be; the URL."""
    with ExitStack() as stack:

        def serve(**changes: object) -> str:
            changed = dataclasses.replace(settings, **changes)
            return stack.enter_context(site(create_app(changed, codec, backend)))

        yield serve


@pytest.fixture
def page(browser, open_site) -> Page:
    """The page, open and ready."""
    page = Page(browser, open_site())
    page.open_ready()
    return page
