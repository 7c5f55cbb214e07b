"""Prints the dashboard as one SVG, drawn from what a Prometheus has of the last minutes.

    python scripts/dashboard_picture.py http://localhost:9090 5 > docs/images/dashboard.svg

Grafana draws it better; this needs nothing but the dashboard's own expressions.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from server.bench.svg import HEIGHT, WIDTH, Line, chart

DASHBOARD = Path(__file__).parent.parent / "deploy/observability/dashboard.json"
WINDOW = {"$__rate_interval": "15s", "$instance": ".*"}
STEPS = 120
UNITS = {"s": "seconds", "percentunit": "share", "short": ""}
COLUMNS = 2


def panel_lines(http: httpx.Client, panel: dict[str, Any], minutes: float) -> list[Line]:
    end = time.time()
    window = {"start": end - 60 * minutes, "end": end, "step": 60 * minutes / STEPS}
    lines = []
    for target in panel["targets"]:
        expression = target["expr"]
        for name, value in WINDOW.items():
            expression = expression.replace(name, value)
        answer = http.get("/api/v1/query_range", params={"query": expression, **window})
        for series in answer.raise_for_status().json()["data"]["result"]:
            points = [
                (float(at) - window["start"], float(value))
                for at, value in series["values"]
                if math.isfinite(float(value))
            ]
            lines.append(Line(legend(target["legendFormat"], series["metric"]), points))
    return [line for line in lines if line.points]


def legend(form: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace(f"{{{{{name}}}}}", value)
    return form


def main(url: str, minutes: float) -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    rows = -(-len(panels) // COLUMNS)
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * COLUMNS} {HEIGHT * rows}">'
    )
    with httpx.Client(base_url=url, timeout=20) as http:
        for index, panel in enumerate(panels):
            unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
            lines = panel_lines(http, panel, minutes)
            picture = chart(panel["title"], "seconds", unit, lines, dots=False)
            place = f'x="{index % COLUMNS * WIDTH}" y="{index // COLUMNS * HEIGHT}"'
            print(picture.replace("<svg ", f"<svg {place} ", 1))
    print("</svg>")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
