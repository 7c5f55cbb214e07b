"""Images and containers by buildah and podman, in a storage of their own under .cache/deploy.

Needs root, as Debian's packages of both do without a user namespace. Nothing is pulled: the base
image is debootstrap's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx

from tests.deploy.chart import ROOT

WORK = (ROOT / ".cache/deploy").resolve()
STORAGE = ["--root", str(WORK / "storage"), "--runroot", str(WORK / "run")]
STORAGE += ["--storage-driver", "overlay"]
# runc, because crun of Debian 12 does not run where control groups are mixed.
PODMAN = ["podman", *STORAGE, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
PODMAN += ["--events-backend", "file"]
BASE, IMAGE = "localhost/debian:bookworm-slim", "localhost/internvl-serve:0.1.0-cpu"
READY_S = 120

NOT_IN_SLIM = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"]
NOT_IN_SLIM += ["var/cache/apt/archives", "var/lib/apt/lists"]
"""What Debian's own slim images leave out."""

READ_ONLY = [
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--shm-size",
    "512m",
    "--pids-limit",
    "300",
]
READ_ONLY += ["--security-opt", "no-new-privileges"]
"""How a careful operator runs it."""


def run(*command: str, timeout_s: float = 60) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        cwd=ROOT,
        env=os.environ | {"CONTAINERS_CONF": str(ROOT / "tests/deploy/containers.conf")},
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def podman(*arguments: str, timeout_s: float = 60) -> str:
    return run(*PODMAN, *arguments, timeout_s=timeout_s)


def build_image(target: str = "cpu") -> None:
    """Builds the image from the Dockerfile, without a cache of layers: buildah would write the
    large ones several times over."""
    if BASE not in podman("images", "--format", "{{.Repository}}:{{.Tag}}"):
        _import_base()
    secret, mounts, torch_index = _pip_configuration()
    command = ["buildah", *STORAGE, "bud", "--isolation", "chroot", "--network", "host"]
    command += ["--pull-never", "--layers=false", "--format", "docker", "--target", target]
    command += ["--build-arg", f"BASE_IMAGE={BASE}", *torch_index, *mounts]
    command += ["--secret", f"id=pip_conf,src={secret}", "--file", "deploy/docker/Dockerfile"]
    run(*command, "--tag", IMAGE, ".", timeout_s=1100)


def _import_base() -> None:
    rootfs = WORK / "rootfs"
    if not (rootfs / "etc/debian_version").exists():
        mirror = "http://deb.debian.org/debian"
        run("debootstrap", "--variant=minbase", "bookworm", str(rootfs), mirror, timeout_s=600)
    packed = WORK / "rootfs.tar"
    command = ["tar", "--create", "--file", str(packed), "--directory", str(rootfs)]
    command += [f"--exclude=./{folder}/*" for folder in NOT_IN_SLIM]
    run(*command, ".", timeout_s=120)
    podman("import", str(packed), BASE, timeout_s=120)
    packed.unlink()


def _pip_configuration() -> tuple[Path, list[str], list[str]]:
    """This machine's way to packages, for the build alone: a pip.conf, mounts of the files that it
    names, and no index of torch where a folder has the wheel."""
    lines, mounts, torch_index = ["[global]"], list[str](), list[str]()
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        option, value = key.rpartition(".")[2], value.strip("'\"")
        if option not in ("cert", "find-links", "index-url") or "\n" in value:
            continue
        if value.startswith("/"):
            inside = f"/run/host{value}"
            mounts.append(f"--volume={value}:{inside}:ro")
            if list(Path(value).glob("torch-*+cpu-*")):
                torch_index = ["--build-arg", "TORCH_INDEX="]
            value = inside
        if f"{option} = {value}" not in lines:
            lines.append(f"{option} = {value}")
    secret = WORK / "pip.conf"
    secret.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return secret, list(dict.fromkeys(mounts)), torch_index


@dataclass
class Container:
    """A running container of the image; `with` removes it."""

    options: list[str]
    arguments: tuple[str, ...] = ("serve", "--cpu-threads", "1")
    name: str = field(default_factory=lambda: f"internvl-{uuid4().hex[:8]}")
    http: httpx.Client = field(init=False)

    def __enter__(self) -> Self:
        options = ["--name", self.name, "--publish", "127.0.0.1::8000", *self.options]
        podman("run", "--detach", *options, IMAGE, *self.arguments)
        address = podman("port", self.name, "8000/tcp").strip()
        self.http = httpx.Client(base_url=f"http://{address}", timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        podman("rm", "--force", "--time", "2", self.name)

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(podman("inspect", self.name))[0]
        return found

    def log(self) -> str:
        done = subprocess.run(
            [*PODMAN, "logs", self.name], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def wait_until_ready(self) -> None:
        wait_until_ready(self.http, self.log)

    def execute(self, *command: str, env: dict[str, str] | None = None) -> str:
        """Output of a command inside."""
        variables = [f"--env={name}={value}" for name, value in (env or {}).items()]
        return podman("exec", *variables, self.name, *command, timeout_s=120)


def wait_until_ready(http: httpx.Client, log: Any) -> None:
    """Until a daemon would work on a request."""
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            if http.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline_s, f"not ready:\n{log()}"
        time.sleep(0.3)
