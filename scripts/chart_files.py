"""Writes what the chart takes from elsewhere: `python scripts/chart_files.py`.

The alerts and the dashboard are copies of those in deploy/observability, because a package holds no
links. The settings in values.schema.json are the daemon's own, with their types, limits and
descriptions, so that Helm refuses what the daemon would.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.settings import Settings

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/helm/internvl-serve"
SCHEMA = CHART / "values.schema.json"
COPIES = {
    CHART / "files/rules.yml": ROOT / "deploy/observability/rules.yml",
    CHART / "files/dashboard.json": ROOT / "deploy/observability/dashboard.json",
}

COMPUTED = {"model", "revision", "served_model_name", "host", "port", "device"}
COMPUTED |= {"tensor_parallel_size", "pipeline_parallel_size", "drain_grace_s", "drain_timeout_s"}
COMPUTED |= {"nnodes", "node_rank", "master_addr", "master_port", "ops_host", "ops_port"}
COMPUTED |= {"api_key_file", "api_keys"}
"""Settings that the chart makes of other values."""


def settings_schema() -> dict[str, Any]:
    """What `settings` of the values may hold."""
    fields = Settings.model_json_schema(by_alias=False)["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {key: value for key, value in field.items() if key not in ("default", "title")}
            for name, field in sorted(fields.items())
            if name not in COMPUTED
        },
    }


def schema_text() -> str:
    """The schema of the values with the daemon's settings in it."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["definitions"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    for copy, original in COPIES.items():
        copy.write_bytes(original.read_bytes())
