"""What the tests of the gateway provider share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ray_app.providers.gateway import GatewayProvider
from ray_app.providers.gateway_client import HARMLESS
from ray_app.providers.port import Embedded
from ray_app.providers.retry import Backoff
from tests.support import fake_gateway_steps as fake
from tests.support.fake_gateway import FakeGateway

KEY = "sk-test-0123456789"
#: No test should wait for real backoffs.
QUICK = Backoff(base=0.001, cap=0.01)
#: A step that changes nothing, to let scripted failures begin later.
HEALTHY = fake.Altered(lambda body: body)
TEXTS = [f"text number {number}" for number in range(10)]

MakeProvider = Callable[..., GatewayProvider]


def expected(texts: list[str], dimensions: int = 8) -> npt.NDArray[np.float32]:
    rows = np.stack([fake.vector_of(text, dimensions) for text in texts])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def assert_embedded(embedded: Embedded, texts: list[str]) -> None:
    """Every text has its vector and none a fault."""
    np.testing.assert_allclose(embedded.vectors, expected(texts), rtol=1e-5, atol=1e-6)
    assert embedded.faults == {}


def statuses(gateway: FakeGateway) -> list[int]:
    return [request.status for request in gateway.requests]


def sizes(gateway: FakeGateway) -> list[int]:
    return [len(request.texts) for request in gateway.requests if request.texts != [HARMLESS]]
