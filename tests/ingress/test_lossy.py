"""Laws of the lossy modes at the edge: bounds, legality, and labels that say what was lost."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from actors.ingress.app import create_app
from policies.audit import AuditFigures
from policies.gates import Gate, GateKind
from policies.lossy import LossyLimits
from policies.vocabulary import Counters, PlanKind
from tests.ingress.conftest import chat_body, completion_body, events_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
FIGURES = AuditFigures(1, 4, 300, 2, 0.025, 0.95, 0.02)


@pytest.fixture
def settings(settings):
    return replace(settings, lossy=LossyLimits())


async def refused(client, extension, **fields):
    response = await client.post(CHAT, json=chat_body(viaserve=extension, **fields))
    assert response.status_code == 400, response.text
    return response.json()["error"]


@pytest.mark.parametrize(
    ("extension", "param"),
    [
        ({"mode": "via", "theta_accept": 0.5, "theta_escalate": 0.5}, "viaserve.theta_accept"),
        ({"mode": "via", "theta_escalate": 0.8}, "viaserve.theta_accept"),
        ({"mode": "via", "theta_accept": 0.29}, "viaserve.theta_accept"),
        ({"mode": "via", "theta_accept": 1.1}, "viaserve.theta_accept"),
        ({"mode": "via", "theta_escalate": -0.1}, "viaserve.theta_escalate"),
        ({"mode": "via", "gate": "margin", "margin": 1.5}, "viaserve.margin"),
        ({"mode": "via", "gate": "wide"}, "viaserve.gate"),
        ({"mode": "via", "alpha": 0.3}, "viaserve.alpha"),
        ({"mode": "cascade", "alpha": 0.95}, "viaserve.alpha"),
        ({"mode": "cascade", "alpha": -0.1}, "viaserve.alpha"),
        ({"mode": "cascade", "theta_accept": 0.5}, "viaserve.theta_accept"),
        ({"mode": "two_tier", "margin": 0.5}, "viaserve.margin"),
        ({"theta_accept": 0.5}, "viaserve.theta_accept"),
    ],
)
async def test_thresholds_out_of_bounds_or_place_are_refused(client, backend, extension, param):
    assert (await refused(client, extension))["param"] == param
    assert backend.requests == []


@pytest.mark.parametrize("mode", ["via", "cascade"])
async def test_logprobs_are_refused_in_a_lossy_mode(client, mode):
    assert (await refused(client, {"mode": mode}, logprobs=True))["param"] == "logprobs"
    response = await client.post(
        COMPLETIONS, json=completion_body(viaserve={"mode": mode}, logprobs=1)
    )
    assert response.json()["error"]["param"] == "logprobs"


@pytest.mark.parametrize("mode", ["via", "cascade"])
async def test_a_server_may_switch_the_lossy_modes_off(settings, codec, backend, mode):
    app = create_app(replace(settings, lossy=None), codec, backend)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://ingress"
    ) as client:
        error = await refused(client, {"mode": mode})
    assert error["param"] == "viaserve.mode"
    assert "switched off" in error["message"]


@pytest.mark.parametrize(
    ("extension", "gate"),
    [
        ({}, None),
        ({"theta_accept": 0.9}, Gate(GateKind.RATIO, 0.9, 0.5, 0.3)),
        ({"gate": "margin"}, Gate(GateKind.MARGIN, 0.7, 0.5, 0.3)),
        ({"gate": "margin", "margin": 0.0}, Gate(GateKind.MARGIN, 0.7, 0.5, 0.0)),
        ({"theta_accept": 1.0, "theta_escalate": 0.0}, Gate(GateKind.RATIO, 1.0, 0.0, 0.3)),
    ],
)
async def test_what_a_request_leaves_out_is_the_servers(client, backend, extension, gate):
    body = chat_body(viaserve={"mode": "via", "gamma": 3, **extension})
    assert (await client.post(CHAT, json=body)).status_code == 200
    plan = backend.requests[0].sessions[0].plan
    assert (plan.kind, plan.gamma, plan.gate) == (PlanKind.VIA, 3, gate)


async def test_cascade_takes_its_alpha(client, backend):
    for alpha in (None, 0.0, 0.9):
        extension = {"mode": "cascade"} | ({} if alpha is None else {"alpha": alpha})
        assert (await client.post(CHAT, json=chat_body(viaserve=extension))).status_code == 200
    assert [r.sessions[0].plan.alpha for r in backend.requests] == [0.3, 0.0, 0.9]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "unseen", "lenient", "exact"),
    [("via", 5, 0, False), ("via", 0, 0, True), ("cascade", 0, 2, False), ("cascade", 0, 0, True)],
)
async def test_an_answer_says_what_it_lost(
    client, backend, monkeypatch, stream, mode, unseen, lenient, exact
):
    backend.counters = Counters(unseen=unseen, lenient=lenient, audit_rows=7, audit_passes=2)
    backend.audit = FIGURES if mode == "via" else None
    body = chat_body(viaserve={"mode": mode}, stream=stream)
    response = await client.post(CHAT, json=body)
    told = events_of(response.text)[-2]["viaserve"] if stream else response.json()["viaserve"]
    assert (told["mode"], told["exact"]) == (mode, exact)
    assert (told["unseen"], told["lenient"]) == (unseen, lenient)
    assert (told["audit_rows"], told["audit_passes"]) == (7, 2)
    assert ("audit" in told) == (mode == "via")
    if mode == "via":
        assert told["audit"]["bound"] == FIGURES.bound
