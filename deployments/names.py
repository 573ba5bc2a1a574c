"""Names under which the parts of the server find each other, and bulk jobs find the gateway proxy."""

from __future__ import annotations

from typing import Final

APPLICATION: Final = "rowbeam"
ROUTER: Final = "Router"
LOCAL_CPU: Final = "LocalModelCpu"
LOCAL_GPU: Final = "LocalModelGpu"
LOCAL_OTHER: Final = "LocalModelOther"
GATEWAY_PROXY: Final = "GatewayProxy"
