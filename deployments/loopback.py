"""A replica's own port, kept from other machines where there are none."""

from __future__ import annotations

from typing import Any

import ray
from ray.serve._private import replica

_LOOPBACK = "127.0.0.1"
_EVERYWHERE = "[::]"


def listen_on_loopback() -> None:
    """On a node that is called 127.0.0.1, let this replica take calls from this machine only.

    Call it in a replica's constructor: Serve 2.60 binds the port by which replicas call each other right
    after, to every interface, whatever its node is called. What comes in there is unpickled without
    asking for the cluster's token, so whoever reaches it runs code. There is no setting for it.
    """
    if ray.util.get_node_ip_address() != _LOOPBACK:
        return
    bind = replica.add_port_to_grpc_server

    def bind_here(server: Any, address: str) -> int:
        port: int = bind(server, address.replace(_EVERYWHERE, _LOOPBACK))
        return port

    replica.add_port_to_grpc_server = bind_here
