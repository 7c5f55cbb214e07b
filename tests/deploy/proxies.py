"""What nginx and Envoy are configured with, from what the chart renders; Envoy as a process."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.chart import Manifest
from tests.proxy import free_port, running_proxy

PREFIX = "nginx.ingress.kubernetes.io/"


def nginx_directives(ingress: Manifest) -> str:
    """What ingress-nginx makes of the annotations: directives of the same names, times in
    seconds."""
    lines = ["proxy_http_version 1.1;", 'proxy_set_header Connection "";']
    for name, value in ingress["metadata"]["annotations"].items():
        directive = name.removeprefix(PREFIX).replace("-", "_")
        if directive == "proxy_body_size":
            directive = "client_max_body_size"
        lines.append(f"{directive} {value}{'s' if directive.endswith('timeout') else ''};")
    return "\n".join(lines)


@contextmanager
def envoy(folder: Path, daemon: str, timeouts: dict[str, str]) -> Iterator[str]:
    """The address of an Envoy before a daemon, with the time-outs of an HTTPRoute's rule."""
    port, admin = free_port(), free_port()
    host, _, daemon_port = daemon.removeprefix("http://").partition(":")
    config = folder / "envoy.json"
    config.write_text(
        json.dumps(_envoy_config(port, admin, host, int(daemon_port), timeouts)), encoding="utf-8"
    )
    binary = shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"
    command = [binary, "--config-path", str(config), "--concurrency", "1", "--log-level", "warn"]
    command += ["--base-id", str(port)]
    with running_proxy(command, folder, port) as url:
        yield url


def _envoy_config(
    port: int, admin: int, host: str, daemon_port: int, timeouts: dict[str, str]
) -> dict[str, Any]:
    def address(host: str, port: int) -> dict[str, Any]:
        return {"socket_address": {"address": host, "port_value": port}}

    def typed(name: str, **fields: Any) -> dict[str, Any]:
        return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}

    # As gateways translate the two: the whole answer, and one attempt at it.
    route = {
        "cluster": "daemon",
        "timeout": timeouts["request"],
        "retry_policy": {"per_try_timeout": timeouts["backendRequest"]},
    }
    router = typed("filters.http.router.v3.Router")
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        route_config={
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }
            ]
        },
        http_filters=[{"name": "router", "typed_config": router}],
    )
    endpoint = {"endpoint": {"address": address(host, daemon_port)}}
    return {
        "admin": {"address": address("127.0.0.1", admin)},
        "static_resources": {
            "listeners": [
                {
                    "address": address("127.0.0.1", port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "daemon",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "daemon",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                    "health_checks": [
                        {
                            "timeout": "1s",
                            "interval": "0.2s",
                            "unhealthy_threshold": 2,
                            "healthy_threshold": 1,
                            "http_health_check": {"path": "/readyz"},
                        }
                    ],
                }
            ],
        },
    }
