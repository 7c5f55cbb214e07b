"""`internvl-serve top`: a running daemon's metrics as a live table in the terminal.

It reads /metrics again and again and shows what happened in between; the daemon may be on another
host.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

PREFIX = "internvl_"
TIMES = (
    ("first token", "time_to_first_token_seconds"),
    ("between tokens", "inter_token_latency_seconds"),
    ("whole request", "request_seconds"),
    ("preparing", "prepare_seconds"),
    ("in the queue", "queue_seconds"),
    ("prefill", "prefill_seconds"),
    ("step", "step_seconds"),
)
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of a page, by name and labels, and when it was read, in seconds."""

    at_s: float
    samples: Mapping[tuple[str, Labels], float]

    @classmethod
    def parse(cls, text: str, at_s: float) -> Scrape:
        families = text_string_to_metric_families(text)
        return cls(
            at_s,
            {
                (sample.name, tuple(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
                if sample.name.startswith(PREFIX)
            },
        )

    def get(self, name: str) -> float:
        """A sample without labels; 0 where there is none."""
        return self.samples.get((PREFIX + name, ()), 0.0)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two scrapes."""

    before: Scrape
    after: Scrape

    def rate(self, name: str) -> float:
        """Increase of a counter a second; of one that began anew, from nothing. What was not there
        before is an engine's that nobody had heard: it has not grown."""
        key = (PREFIX + name, ())
        if key not in self.before.samples:
            return 0.0
        return self._increase(key) / (self.after.at_s - self.before.at_s)

    def quantile(self, name: str, share: float) -> float | None:
        """Of a histogram's observations in between, linear inside a bound; None without any."""
        buckets = []
        for key in self.after.samples:
            if key[0] == f"{PREFIX}{name}_bucket":
                buckets.append((float(dict(key[1])["le"]), self._increase(key)))
        buckets.sort()
        if not buckets or not buckets[-1][1]:
            return None
        wanted = share * buckets[-1][1]
        low, below = 0.0, 0.0
        for high, count in buckets:
            if count >= wanted:
                if high == float("inf"):
                    return low
                return low + (high - low) * (wanted - below) / (count - below)
            low, below = high, count
        return low

    def labelled(self, part: str) -> list[tuple[str, str, float]]:
        """(series, value of its label, rate) of counters with one label whose name holds `part`."""
        seconds = self.after.at_s - self.before.at_s
        return [
            (name.removeprefix(PREFIX).removesuffix("_total"), labels[0][1], rate)
            for (name, labels) in self.after.samples
            if len(labels) == 1 and name.endswith("_total") and part in name
            if (rate := self._increase((name, labels)) / seconds)
        ]

    def _increase(self, key: tuple[str, Labels]) -> float:
        now, then = self.after.samples.get(key, 0.0), self.before.samples.get(key, 0.0)
        return now - then if now >= then else now


def view(change: Change, url: str) -> RenderableType:
    """Everything on one screen."""
    state = Table(title=f"{url}  {_engine(change.after)}", title_justify="left", expand=True)
    for heading in ("requests", "tokens a second", "KV cache", "pictures", "steps"):
        state.add_column(heading)
    after, rate = change.after, change.rate
    prompt, cached = rate("prompt_tokens_total"), rate("cached_tokens_total")
    state.add_row(
        f"{after.get('requests_running'):.0f} of {after.get('request_slots'):.0f} slots\n"
        f"{after.get('requests_waiting'):.0f} waiting\n"
        f"{rate('preemptions_total'):.1f}/s preempted",
        f"{rate('generated_tokens_total'):.0f} out\n{prompt:.0f} in\n"
        f"{_share(cached, prompt)} of it cached",
        f"{_bar(after.get('kv_cache_usage_ratio'))}\n{after.get('kv_blocks_used'):.0f} of "
        f"{after.get('kv_blocks'):.0f} blocks",
        f"{rate('images_encoded_total'):.1f}/s encoded\n"
        f"{rate('images_cached_total'):.1f}/s cached\n"
        f"{after.get('image_slots_used'):.0f} on the device",
        f"{rate('steps_total'):.0f}/s\n{rate('step_seconds_sum'):.0%} of the time",
    )
    times = Table(expand=True)
    for heading in ("milliseconds", "p50", "p95", "p99"):
        times.add_column(heading, justify="left" if heading == "milliseconds" else "right")
    for word, name in TIMES:
        times.add_row(word, *(_ms(change.quantile(name, share)) for share in (0.5, 0.95, 0.99)))
    return Group(state, times, _events(change))


def _events(change: Change) -> RenderableType:
    """Responses, errors and refusals."""
    table = Table(expand=True)
    for heading in ("a second", "of", ""):
        table.add_column(heading)
    for part in ("http_responses", "errors", "refused"):
        for name, value, rate in change.labelled(part):
            table.add_row(name.replace("_", " "), value, f"{rate:.2f}")
    return table


def _engine(scrape: Scrape) -> str:
    ready = "ready" if scrape.get("engine_ready") else "NO ENGINE"
    restarts = scrape.get("restarts_total")
    return f"{ready}, {restarts:.0f} restarts" if restarts else ready


def _bar(share: float, width: int = 20) -> str:
    full = round(share * width)
    return f"{'█' * full}{'░' * (width - full)} {share:.0%}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def run(arguments: argparse.Namespace) -> int:
    """Watches until Ctrl-C; returns the exit status."""
    url = arguments.url.rstrip("/").removesuffix("/v1")
    headers = {"authorization": f"Bearer {arguments.api_key}"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=5) as http:
            changes = _changes(http, max(0.1, arguments.interval))
            if arguments.once:
                Console().print(view(next(iter(changes)), url))
                return 0
            with Live(screen=True, auto_refresh=False) as live:
                for change in changes:
                    live.update(view(change, url), refresh=True)
    except (httpx.HTTPError, ValueError) as error:
        print(
            f"internvl-serve top: no metrics at {url} ({type(error).__name__}: {error}); name a "
            "daemon with --url",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _changes(http: httpx.Client, interval_s: float) -> Iterable[Change]:
    before = _scrape(http)
    while True:
        time.sleep(interval_s)
        after = _scrape(http)
        yield Change(before, after)
        before = after


def _scrape(http: httpx.Client) -> Scrape:
    text = http.get("/metrics").raise_for_status().text
    return Scrape.parse(text, time.monotonic())
