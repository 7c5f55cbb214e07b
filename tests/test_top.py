from __future__ import annotations

import io

import pytest
from rich.console import Console

from server import top
from server.cli import build_parser
from server.messages import Gauges
from server.metrics import ApiMetrics
from server.top import Change, Scrape, view
from tests.api.fake_engine import READY, FakeEngine, says
from tests.api.harness import RunningApi, chat
from tests.views import View


@pytest.fixture
def metrics() -> ApiMetrics:
    return ApiMetrics(View(ready=READY), "model")


def later(metrics: ApiMetrics, at_s: float) -> Scrape:
    return Scrape.parse(metrics.render().decode(), at_s)


def test_rates_are_increases_over_the_time_between() -> None:
    engine = View(Gauges(generated_tokens_total=100, steps_total=50))
    metrics = ApiMetrics(engine)
    before = later(metrics, 10.0)
    engine.latest = Gauges(generated_tokens_total=160, steps_total=4)
    change = Change(before, later(metrics, 12.0))
    assert change.rate("generated_tokens_total") == 30
    assert change.rate("steps_total") == 2, "the engine was started again"
    assert change.rate("unheard_of_total") == 0


def test_what_an_engine_had_counted_before_it_was_heard_is_no_increase() -> None:
    engine = View()
    metrics = ApiMetrics(engine)
    before = later(metrics, 10.0)
    engine.latest = Gauges(kv_blocks=1, generated_tokens_total=5000)
    assert Change(before, later(metrics, 12.0)).rate("generated_tokens_total") == 0


def test_quantiles_are_of_what_was_observed_in_between(metrics: ApiMetrics) -> None:
    metrics.step_seconds.observe(2.0)
    before = later(metrics, 0.0)
    assert Change(before, later(metrics, 1.0)).quantile("step_seconds", 0.5) is None
    for _ in range(10):
        metrics.step_seconds.observe(0.035)
    change = Change(before, later(metrics, 1.0))
    assert change.quantile("step_seconds", 0.5) == pytest.approx(0.035)
    metrics.step_seconds.observe(99.0)
    assert Change(before, later(metrics, 1.0)).quantile("step_seconds", 1.0) == 2.5


def test_everything_is_on_the_screen(metrics: ApiMetrics) -> None:
    before = later(metrics, 0.0)
    metrics.errors.increase("invalid_value")
    metrics.time_to_first_token.observe(0.3)
    console = Console(file=io.StringIO(), width=120)
    console.print(view(Change(before, later(metrics, 1.0)), "http://x"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for part in ("http://x  ready", f"0 of {READY.max_num_seqs} slots", "first token", "KV cache"):
        assert part in text
    assert "invalid_value" in text


def test_a_daemon_is_looked_at_once(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    with FakeEngine(run_dir, says([5])), RunningApi(run_dir) as api:
        api.wait_until_ready()
        api.post(chat())
        flags = ["top", "--once", "--interval", "0.1", "--url", f"{api.url}/v1"]
        assert top.run(build_parser().parse_args(flags)) == 0
    assert f"{api.url}  ready" in capsys.readouterr().out


def test_nobody_there_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["top", "--once", "--url", "http://127.0.0.1:9"]
    assert top.run(build_parser().parse_args(flags)) == 1
    assert "no metrics at http://127.0.0.1:9 (ConnectError" in capsys.readouterr().err
