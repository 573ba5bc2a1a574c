"""Ports that are kept for a server until it starts."""

from __future__ import annotations

import socket

import pytest

from ray_app.stack.ports import free_port, free_ports


@pytest.mark.parametrize("address", ["", "127.0.0.1"])
def test_ports_are_kept_from_whoever_does_not_ask_for_them_as_a_server(address: str) -> None:
    ports = free_ports(9)
    assert len(set(ports)) == len(ports)
    for port in ports:
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind((address, port))


@pytest.mark.parametrize("address", ["", "127.0.0.1"])
def test_a_server_gets_the_port_that_was_chosen_for_it(address: str) -> None:
    port = free_port()
    with socket.create_server((address, port)), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_kept_port_is_not_chosen_again() -> None:
    first, second = free_ports(50), free_ports(50)
    assert not {*first} & {*second}
