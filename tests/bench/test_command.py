"""The whole command against the null server, which runs in a thread."""

from __future__ import annotations

import asyncio
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks
from benchmarks.null_server import NullServer
from server.bench import command
from server.bench.plan import read_plan
from server.bench.result import load
from server.cli import build_parser

SCENARIOS = Path(benchmarks.__file__).parent / "scenarios"


@pytest.fixture
def null() -> Iterator[tuple[NullServer, str]]:
    server, loop = NullServer(gap_s=0.001), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    url = asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    yield server, url
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def bench(*words: str) -> int:
    return command.run(build_parser().parse_args(["bench", *words]))


def test_from_flags_to_table_result_and_report(
    null: tuple[NullServer, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, url = null
    flags = ["--base-url", url, "--requests", "6", "--output-tokens", "5", "--warmup", "1"]
    files = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    assert (
        bench(*flags, "--rate", "300,600", "--concurrency", "2", "--goodput", "e2e:1e6", *files)
        == 0
    )
    assert len(server.bodies) == 2 + 1 + 3 * 6
    assert all(body["ignore_eos"] for body in server.bodies[2:])
    result = load(tmp_path / "a.json")
    assert result.server["version"] == {"version": "0.0.1"}
    assert [point.title for point in result.points] == [
        "text, 300 req/s",
        "text, 600 req/s",
        "text, c=2",
    ]
    for point in result.points:
        assert (point.summary.completed, point.summary.output_tokens) == (6, 30)
        assert point.summary.good_requests_per_s == point.summary.requests_per_s
        assert all(len(request.gaps_s) == 4 for request in point.requests)
    assert "text, 600 req/s" in capsys.readouterr().out
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 5
    for plot in plots:
        ET.fromstring(plot)
    assert not re.search(r"(src|href)=|@import|url\(", page), "nothing is fetched"


def test_a_plan_runs_several_scenarios_and_two_results_are_compared(
    null: tuple[NullServer, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[[run]]\nscenario = "text"\nrequests = 2\nwarmup = 0\nconcurrencies = [1]\n'
        '[[run]]\nname = "talk"\nscenario = "multi-turn"\nrequests = 5\nturns = 2\n',
        encoding="utf-8",
    )
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        assert bench("--base-url", null[1], "--plan", str(plan), "--json", str(file)) == 0
    capsys.readouterr()
    assert bench("compare", *map(str, files)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"text, c=1 +out tok/s +\S+ +\S+ +\d+\.\d{3}$", line) for line in lines)
    assert any(line.startswith("talk, c=1 ") for line in lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--base-url", "http://127.0.0.1:9/v1"], "no answer from"),
        (["--requests", "0"], "`requests` must be at least 1"),
        (["--rate", "-1"], "must be positive"),
        (["--goodput", "x:1"], "--goodput x:1"),
        (["--plan", "nowhere.toml"], "nowhere.toml: No such file"),
        (["compare", "nowhere.json", "nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*words) == 1
    assert told in capsys.readouterr().err


def test_an_unknown_field_of_a_plan_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[[run]]\nscenari = "text"\n', encoding="utf-8")
    assert bench("--plan", str(plan)) == 1
    assert "scenari" in capsys.readouterr().err


def test_the_plans_that_come_with_the_daemon_are_plans() -> None:
    files = list(SCENARIOS.glob("*.toml"))
    assert files
    assert all(map(read_plan, files))
