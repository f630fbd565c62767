"""The ingress on written answers behind real HTTP, and the page on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.ingress.app import create_app
from actors.ingress.settings import IngressSettings
from actors.ingress.text import TextCodec
from policies.lossy import LossyLimits
from policies.vocabulary import Plan, PlanKind
from tests.ingress.conftest import byte_level_tokenizer
from tests.playground.backend import PageBackend, Stand, texts_of
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


@pytest.fixture(scope="session")
def stand() -> Stand:
    return Stand()


@pytest.fixture(scope="session")
def url(settings, codec, stand) -> Iterator[str]:
    """One server for all tests that need none of their own."""
    with site(create_app(settings, codec, stand)) as address:
        yield address


@pytest.fixture
def page(browser, url, stand, backend) -> Page:
    """The page, open and ready, on this test's backend."""
    stand.backend = backend
    page = Page(browser, url)
    page.open_ready()
    return page
