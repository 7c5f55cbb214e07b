"""Two containers with LeaderWorkerSet's variables: one group, one answer, one end."""

from __future__ import annotations

import json
import time

import pytest

from tests.deploy.chart import CHART
from tests.deploy.containers import READ_ONLY, Container, podman

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("image")]
ASK = (CHART / "files/ask.py").read_text(encoding="utf-8")
LEADER = "internvl-0"
SERVE = ("serve", "--cpu-threads", "1", "--tensor-parallel-size", "2", "--join-timeout-s", "20")
"""The same of both, as LeaderWorkerSet's pods have it."""
END_S = 60


def pod(index: int, *options: str) -> Container:
    """One pod of the group."""
    variables = {
        "LWS_LEADER_ADDRESS": LEADER,
        "LWS_GROUP_SIZE": "2",
        "LWS_WORKER_INDEX": str(index),
    }
    environment = [f"--env={name}={value}" for name, value in variables.items()]
    name = f"--hostname=internvl-0-{index}" if index else f"--hostname={LEADER}"
    return Container([*READ_ONLY, name, *environment, *options], SERVE)


def address(container: Container) -> str:
    networks = container.inspect()["NetworkSettings"]
    found: str = networks["IPAddress"] or next(iter(networks["Networks"].values()))["IPAddress"]
    return found


def exit_code(container: Container) -> int:
    """Of a container that ends by itself."""
    deadline_s = time.monotonic() + END_S
    while container.inspect()["State"]["Running"]:
        assert time.monotonic() < deadline_s, f"it has not ended:\n{container.log()}"
        time.sleep(0.5)
    code: int = container.inspect()["State"]["ExitCode"]
    return code


def test_a_group_of_two_answers_and_the_leader_says_why_it_ends() -> None:
    with pod(0) as leader, pod(1, f"--add-host={LEADER}:{address(leader)}") as worker:
        leader.wait_until_ready()
        assert f"node 1 ({address(worker)}) joined" in leader.log()
        answer = leader.execute("python", "-c", ASK, env={"SERVER": "http://127.0.0.1:8000"})
        assert json.loads(answer)["choices"][0]["message"]["content"] == "red"
        podman("kill", worker.name)
        assert exit_code(leader) == 1
        assert "node 1" in leader.log().rpartition("joined")[2]
