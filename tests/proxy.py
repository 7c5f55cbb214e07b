"""A proxy before daemons, as a process that ends with the test; nginx without the chart's tools."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_S = 30


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, daemons: Sequence[str], directives: str) -> Iterator[str]:
    """The address of an nginx before daemons, which it tries one after another."""
    port = free_port()
    config = folder / "nginx.conf"
    servers = " ".join(f"server {url.removeprefix('http://')} max_fails=0;" for url in daemons)
    config.write_text(
        f"""
        daemon off; master_process off; pid {folder}/pid; error_log stderr;
        events {{}}
        http {{
          access_log off;
          client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
          fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
          upstream daemons {{ {servers} }}
          server {{
            listen 127.0.0.1:{port};
            location / {{ proxy_pass http://daemons; {directives} }}
          }}
        }}
        """,
        encoding="utf-8",
    )
    command = ["/usr/sbin/nginx", "-c", str(config), "-p", str(folder), "-e", "stderr"]
    with running_proxy(command, folder, port) as url:
        yield url


@contextmanager
def running_proxy(command: Sequence[str], folder: Path, port: int) -> Iterator[str]:
    with (folder / "proxy.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline_s = time.monotonic() + START_S
            while not _answers(port):
                log.seek(0)
                assert process.poll() is None, log.read()
                assert time.monotonic() < deadline_s, log.read()
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
