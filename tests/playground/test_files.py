"""Laws of how the page's files are sent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from actors.ingress.app import create_app
from infra.playground.assets import read_assets

ASSETS = read_assets()
PATHS = [asset.path for asset in ASSETS]
TYPES = {
    "/": "text/html; charset=utf-8",
    "/playground/style.css": "text/css; charset=utf-8",
    "/playground/app.js": "text/javascript; charset=utf-8",
    "/playground/icon.svg": "image/svg+xml",
}
Open = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def visit(settings, codec, backend) -> AsyncIterator[Open]:
    """A client of the ingress with other settings if need be."""
    clients: list[httpx.AsyncClient] = []

    def connect(**changes: object) -> httpx.AsyncClient:
        app = create_app(dataclasses.replace(settings, **changes), codec, backend)
        transport = httpx.ASGITransport(app)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://ingress"))
        return clients[-1]

    yield connect
    for client in clients:
        await client.aclose()


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_is_open_where_keys_are_set(visit: Open, path):
    client = visit(api_keys=("secret",))
    response = await client.get(path)
    assert response.status_code == 200
    assert response.content
    assert (await client.get("/v1/models")).status_code == 401


@pytest.mark.parametrize("path", PATHS)
async def test_policy_allows_nothing_but_the_server_itself(visit: Open, path):
    headers = (await visit().get(path)).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("path", "kind"), TYPES.items())
async def test_files_say_what_they_are(visit: Open, path, kind):
    assert (await visit().get(path)).headers["content-type"] == kind


@pytest.mark.parametrize("path", PATHS)
async def test_a_file_is_sent_again_only_if_it_has_changed(visit: Open, path):
    client = visit()
    first = await client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = await client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_head_has_the_headers_of_get(visit: Open):
    client = visit()
    get, head = await client.get("/"), await client.head("/")
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(get.content))
    assert head.headers["etag"] == get.headers["etag"]


@pytest.mark.parametrize(
    "path", ["/playground", "/playground/", "/playground/../app.py", "/playground/%2e%2e/assets.py"]
)
async def test_nothing_else_can_be_had(visit: Open, path):
    assert (await visit().get(path)).status_code == 404


@pytest.mark.parametrize("path", PATHS)
async def test_playground_can_be_switched_off(visit: Open, path):
    assert (await visit(playground=False).get(path)).status_code == 404
    assert (await visit(playground=False, api_keys=("secret",)).get(path)).status_code == 401


@pytest.mark.parametrize("asset", ASSETS, ids=PATHS)
def test_page_names_no_other_server_and_holds_no_inline_code(asset):
    text = asset.body.decode()
    addresses = set(re.findall(r"https?://[^\s\"'`]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for way_in in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way_in not in text
    if asset.path == "/":
        assert not re.search(r"\son\w+=|<style|\sstyle=|<script(?![^>]*\ssrc=)", text)
