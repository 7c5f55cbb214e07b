"""Code that runs in the engine's processes before anything else does."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path


def injected(folder: Path, fault: Path, code: str) -> tuple[str, ...]:
    """What to put before a command, so that Python runs `code` at the start of the engine and of
    each rank. It finds `fault`, a file that is there when the fault shall happen."""
    page = f"import pathlib\nfault = pathlib.Path({str(fault)!r})\n{code}"
    guard = "import sys\nif 'server.engine_process' in sys.orig_argv:\n"
    (folder / "sitecustomize.py").write_text(guard + textwrap.indent(page, "    "))
    path = os.pathsep.join([str(folder), os.getcwd()])
    return ("env", f"PYTHONPATH={path}")
