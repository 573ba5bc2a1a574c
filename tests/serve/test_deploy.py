"""The same application by Serve's own commands: ``serve deploy`` with the file, grown and drained by us."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from deployments.app import build
from tests.support.serve_load import embed
from tests.support.serve_site import ServeSite, new_site
from tests.support.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def bare_site() -> Iterator[ServeSite]:
    """A head without a server."""
    with new_site(local_model="stub:3000") as site:
        started = site.rowbeam("up", "--no-server")
        assert (started["changed"], started["server"]) == (["postgres", "ray"], None)
        yield site


def write_config(site: ServeSite, path: Path, **arguments: Any) -> Path:
    """The file that is shipped, with the site's port."""
    document = yaml.safe_load((files("deployments") / "serve.yaml").read_text("utf-8"))
    document["http_options"]["port"] = site.settings.http_port
    document["applications"][0]["args"] |= arguments
    path.write_text(yaml.safe_dump(document))
    return path


def deploy(site: ServeSite, config: Path) -> None:
    connection = site.stack.connection_env()
    command = ["-m", "ray.serve.scripts", "deploy", str(config), "-a", connection["RAY_API_SERVER_ADDRESS"]]
    subprocess.run(
        [sys.executable, *command],
        env=site.environment | connection,
        check=True,
        timeout=PATIENCE,
        capture_output=True,
    )
    wait_for(site.is_ready)


def test_serve_deploy_starts_it_and_it_grows_with_the_tokens_that_wait(
    bare_site: ServeSite, tmp_path: Path
) -> None:
    site = bare_site
    deploy(site, write_config(site, tmp_path / "serve.yaml", max_cpu_replicas=2))
    _, key = site.add_tenant()
    assert len(site.replicas("LocalModelCpu")) == 1
    done = threading.Event()
    threads = [threading.Thread(target=_embed_until, args=(site, key, done)) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(site.replicas("LocalModelCpu")) == 2)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    # What somebody else deployed is drained by rowbeam down too.
    assert "ray" in site.down()["changed"]


def _embed_until(site: ServeSite, key: str, done: threading.Event) -> None:
    with site.client(key) as client:
        while not done.is_set():
            assert embed(client, ["word " * 250] * 80).status_code in (200, 429, 503)


def test_serve_run_takes_arguments_as_text() -> None:
    """``serve run deployments.app:build max_records=5``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROWBEAM_LOCAL_MODEL", "stub")
        application = call_user_app_builder_with_args_if_necessary(build, {"max_records": "5"})
        options = application._bound_deployment.init_args[0]
        assert options.max_records == 5
        with pytest.raises(ValueError, match="max_record"):
            call_user_app_builder_with_args_if_necessary(build, {"max_record": "5"})
