"""Routes of the playground's files, for GET and HEAD. It knows nothing of what is in them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.playground.assets import Asset, read_assets


def page_routes() -> list[Route]:
    """One for each file."""
    return [_route(asset) for asset in read_assets()]


def _route(asset: Asset) -> Route:
    async def send(request: Request) -> Response:
        if asset.is_known(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=asset.headers)
        return Response(asset.body, headers=asset.headers)

    return Route(asset.path, send, methods=["GET"])
