"""The CPU image: built from a bare Debian, run without rights, asked about a picture, ended."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.chart import CHART, ROOT, find, render
from tests.deploy.containers import (
    IMAGE,
    PODMAN,
    READ_ONLY,
    Container,
    podman,
    run,
    wait_until_ready,
)

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("image")]
ASK = (CHART / "files/ask.py").read_text(encoding="utf-8")
LARGEST_BYTES = 1_500_000_000


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """One run as careful operators do; shared, so leave it as it was."""
    with Container(READ_ONLY) as container:
        container.wait_until_ready()
        yield container


def test_the_image_is_small(image: dict[str, Any]) -> None:
    assert image["Size"] < LARGEST_BYTES


def test_the_image_says_what_it_is(image: dict[str, Any]) -> None:
    assert image["Config"]["User"] == "10001:0"
    assert image["Config"]["Entrypoint"] == ["tini", "--", "internvl-serve"]
    labels = image["Config"]["Labels"]
    for name in ("source", "revision", "version", "licenses"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_nothing_of_the_build_is_left() -> None:
    command = "ls /run/secrets /src /root/.cache /opt/venv/bin/pip 2>/dev/null || true"
    assert podman("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", command) == ""


def test_it_answers_about_a_picture_without_rights(container: Container) -> None:
    answer = container.execute("python", "-c", ASK, env={"SERVER": "http://127.0.0.1:8000"})
    assert json.loads(answer)["choices"][0]["message"]["content"] == "red"
    status = container.execute("cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert container.execute("id", "-u").strip() == "10001"
    podman("healthcheck", "run", container.name)


def test_any_user_of_group_0_may_run_it() -> None:
    writable = ["--volume", "/cache", "--user", "12345:0"]
    with Container([*READ_ONLY, *writable]) as other:
        other.wait_until_ready()
        other.execute("python", "-c", ASK, env={"SERVER": "http://127.0.0.1:8000"})
        assert other.execute("id", "-u").strip() == "12345"
        other.execute("touch", "/cache/kernel")


def test_sigterm_lets_a_stream_end() -> None:
    serve = ("serve", "--cpu-threads", "1", "--drain-grace-s", "1", "--drain-timeout-s", "60")
    with Container(READ_ONLY, serve) as ending:
        ending.wait_until_ready()
        model = ending.http.get("/v1/models").json()["data"][0]["id"]
        body = {"model": model, "prompt": "a", "max_tokens": 400, "stream": True}
        stop = threading.Thread(target=podman, args=("stop", "--time", "90", ending.name))
        with ending.http.stream(
            "POST", "/v1/completions", json=body | {"ignore_eos": True}
        ) as stream:
            events = (line for line in stream.iter_lines() if line.startswith("data: "))
            next(events)
            stop.start()
            rest = list(events)
        stop.join()
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason":"length"' in "".join(rest)
        assert ending.inspect()["State"]["ExitCode"] == 0


def test_podman_runs_the_rendered_deployment(tmp_path: Path) -> None:
    values = {"settings": {"cpu_threads": 1}, "image": {"repository": "localhost/internvl-serve"}}
    deployment = find(render(values), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    pod["containers"][0]["ports"][0]["hostPort"] = 18437
    manifest = tmp_path / "deployment.yaml"
    manifest.write_text(yaml.safe_dump(deployment), encoding="utf-8")
    try:
        podman("play", "kube", str(manifest), timeout_s=120)
        with httpx.Client(base_url="http://127.0.0.1:18437", timeout=60) as http:
            wait_until_ready(http, lambda: podman("ps", "--all"))
            assert http.get("/v1/models").status_code == 200
    finally:
        podman("play", "kube", "--down", str(manifest), timeout_s=200)


def test_the_bill_of_materials_names_what_is_in_it(tmp_path: Path) -> None:
    cyclonedx = Path(sys.executable).with_name("cyclonedx-py")
    run(
        "env", f"CONTAINER={' '.join(PODMAN)}", f"CYCLONEDX={cyclonedx}",
        str(ROOT / "deploy/docker/sbom.sh"), IMAGE, str(tmp_path),
    )  # fmt: skip
    bill = json.loads((tmp_path / "python.cdx.json").read_text(encoding="utf-8"))
    names = {component["name"].lower() for component in bill["components"]}
    assert {"torch", "uvicorn", "pillow"} <= names
    assert "\nlibc6\t" in (tmp_path / "debian.tsv").read_text(encoding="utf-8")
