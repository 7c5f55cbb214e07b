"""The images' health check asks the port that the daemon of the container listens on."""

from __future__ import annotations

import runpy

import pytest

from server.cli import build_parser
from server.settings import Settings
from tests.deploy.chart import ROOT

port = runpy.run_path(str(ROOT / "deploy/docker/healthcheck.py"))["port"]
TINI = ["tini", "--", "internvl-serve"]


def command_line(*arguments: str) -> bytes:
    """As the kernel shows it in /proc."""
    return b"".join(argument.encode() + b"\0" for argument in arguments)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--port", "9000"],
        ["--port=9000"],
        ["--po", "9000"],
        ["--port", "9000", "--port", "9001"],
        ["--model", "/models/a b", "--profile-steps", "2", "--port", "9000", "--no-playground"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("variable", [None, "7000"])
def test_it_reads_the_port_where_the_daemon_does(
    flags: list[str], variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("INTERNVL_SERVE_PORT", variable)
    given = vars(build_parser().parse_args(["serve", *flags]))
    del given["command"]
    assert port(command_line(*TINI, "serve", *flags)) == str(Settings(**given).port)


def test_without_a_command_line_of_ours_it_is_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the host's namespace of processes the first one is the host's."""
    assert port(command_line("/sbin/init", "--port", "1")) == "8000"
    monkeypatch.setenv("INTERNVL_SERVE_PORT", "7000")
    assert port(command_line("/sbin/init", "--port", "1")) == "7000"
