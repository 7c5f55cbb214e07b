"""Ends with 0 when the daemon of this container would work on a request now.

For Docker and Compose; Kubernetes asks /readyz itself. Finds the port where the daemon does, on the
command line of the container's first process or in the environment, and asks on the loopback
address: a daemon with another `--host` needs a check of its own.
"""

import argparse
import os
import urllib.request
from pathlib import Path


def port(command_line: bytes) -> str:
    """
    Args:
        command_line: as /proc shows it, that of tini included.
    """
    _, _, flags = command_line.partition(b"\0serve\0")
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--port", default=os.environ.get("INTERNVL_SERVE_PORT", "8000"))
    found: str = parser.parse_known_args(os.fsdecode(flags).split("\0"))[0].port
    return found


if __name__ == "__main__":
    address = f"http://127.0.0.1:{port(Path('/proc/1/cmdline').read_bytes())}/readyz"
    with urllib.request.urlopen(address, timeout=4):
        pass
