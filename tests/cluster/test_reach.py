"""Laws of the look at a cluster's address: what cannot be reached is told at once, and why."""

from __future__ import annotations

import socket

import pytest

from cluster.reach import unreachable


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "no host and port"),
        (":6379", "no host and port"),
        ("127.0.0.1:x", "no host and port"),
        ("127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:1", "Connection refused"),
        ("127.0.0.1:99999", "no such port"),
        ("a..b:6379", "label"),
    ],
)
def test_an_address_where_nobody_listens_is_told_with_the_reason(address: str, why: str):
    assert why in (unreachable(address) or "")


def test_somebody_who_listens_is_reached_and_ray_may_look_for_itself():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"127.0.0.1:{server.getsockname()[1]}") is None
    assert unreachable("auto") is None
