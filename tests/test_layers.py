"""Who may import whom, held by walking the import graph of the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import server

ROOT = Path(server.__file__).parent

LEAVES = {"errors", "host", "limits", "messages", "settings", "logs"}
"""Importable by all; they import nothing of ours but each other."""

ALLOWED = {
    "mapped": set(),
    "heartbeat": LEAVES | {"mapped"},
    "in_flight": {"mapped", "messages"},
    "listening": LEAVES,
    "ipc": LEAVES,
    "board": {"mapped"},
    "series": {"board"},
    "buckets": set(),
    "vllm_names": set(),
    "metrics": LEAVES | {"board", "buckets", "series", "vllm_names"},
    "child": LEAVES | {"distributed.place"},
    "grammars": LEAVES,
    "model.spec": LEAVES,
    "model.locate": LEAVES,
    "model.headers": LEAVES,
    "distributed.peers": set(),
    "distributed.place": set(),
    "model.stages": LEAVES | {"distributed.peers"},
    "model.shards": LEAVES | {"distributed.peers", "model.spec", "model.stages"},
    "frontend": LEAVES | {"grammars"},
    "model.footprint": LEAVES | {"model.shards", "model.spec"},
    "model.towers": LEAVES | {"model.footprint", "model.shards", "model.spec"},
    "api": LEAVES
    | {"board", "frontend", "heartbeat", "in_flight", "ipc", "mapped", "metrics"}
    | {"model.spec", "series"},
    "engine": LEAVES | {"grammars", "in_flight", "ipc", "metrics"},
    "kernels": LEAVES,
    "distributed": LEAVES | {"distributed.peers", "distributed.place", "engine.plan"},
    "model": LEAVES | {"distributed", "kernels", "model.headers", "model.shards", "model.spec"},
    "runner": LEAVES
    | {
        "distributed",
        "engine.plan",
        "kernels",
        "model",
        "model.footprint",
        "model.shards",
        "model.spec",
        "model.towers",
    },
    "demo": LEAVES | {"frontend", "kernels", "model", "model.spec"},
    "children": LEAVES | {"child"},
    "link": LEAVES,
    "hosts": LEAVES | {"link", "listening"},
    "supervisor": LEAVES
    | {"child", "children", "distributed.place", "hosts", "listening", "watchdog"},
    "watchdog": LEAVES | {"children", "heartbeat"},
    "worker": LEAVES | {"child", "children", "distributed.place", "hosts", "link", "watchdog"},
    "client_flags": set(),
    "terminal": set(),
    "bench": set(),
    "top": set(),
    "layout": LEAVES | {"model.footprint", "model.shards", "model.spec", "model.towers"},
    "planner": LEAVES
    | {"layout", "model.footprint", "model.headers", "model.shards", "model.spec", "model.stages"},
    "cli": LEAVES
    | {
        "bench",
        "client_flags",
        "hosts",
        "listening",
        "model.locate",
        "planner",
        "supervisor",
        "terminal",
        "top",
        "worker",
    },
    "api_process": LEAVES | {"api", "child"},
    "engine_process": LEAVES
    | {"child", "distributed", "engine", "frontend.matchers", "frontend.tokenizer", "ipc"}
    | {"heartbeat", "in_flight", "model.spec", "runner"},
    "grammar_process": LEAVES
    | {"frontend.matchers", "frontend.tokenizer", "grammars", "model.spec"},
    "__main__": {"cli"},
}
ROOTS = {"cli", "supervisor", "worker", "api_process", "engine_process", "grammar_process"}
ROOTS |= {"__main__"}
"""They put the parts together."""

NEVER = {
    "api": {"torch"},
    "api_process": {"torch"},
    "grammar_process": {"torch"},
    "frontend": {"torch", "fastapi", "starlette"},
    "grammars": {"torch", "fastapi", "starlette"},
    "engine": {"torch", "fastapi", "starlette"},
    "model.spec": {"torch"},
    "model.locate": {"torch"},
    "model.footprint": {"torch"},
    "model.headers": {"torch"},
    "model.shards": {"torch"},
    "model.towers": {"torch"},
    "bench": {"torch", "fastapi"},
    "cli": {"torch", "fastapi"},
    "supervisor": {"torch", "fastapi"},
    "worker": {"torch", "fastapi"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix("__init__").removesuffix("."), path


MODULES = dict(modules())


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("server.") in MODULES else node.module


def layer(module: str) -> str:
    """The entry of `ALLOWED` that a module belongs to: the longest that fits."""
    names = [name for name in ALLOWED if module == name or module.startswith(f"{name}.")]
    return max(names, key=len, default=module)


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    home = layer(module)
    allowed = ALLOWED.get(home, LEAVES)
    for name in imports(MODULES[module]):
        if name.split(".")[0] == "server" and name != "server":
            target = name.removeprefix("server.")
            assert layer(target) == home or any(
                target == entry or target.startswith(f"{entry}.") for entry in allowed
            ), f"{module} imports {target}"
        assert name.split(".")[0] not in NEVER.get(home, set()), f"{module} imports {name}"


def test_nobody_imports_the_composition_roots() -> None:
    for module, path in MODULES.items():
        if module in ROOTS:
            continue
        for name in imports(path):
            assert name.removeprefix("server.") not in ROOTS, f"{module} imports {name}"


def test_every_top_level_module_has_a_layer() -> None:
    assert {module.split(".")[0] for module in MODULES if module} <= (
        {name.split(".")[0] for name in ALLOWED} | LEAVES
    )


@pytest.mark.parametrize("module", ["server.api_process", "server.cli", "server.engine.loop"])
def test_torch_is_not_even_loaded(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_daemon_does_not_load_clients() -> None:
    code = "import sys, server.cli; sys.exit(bool({'httpx', 'rich'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_the_environment_is_read_by_the_settings_alone() -> None:
    for module, path in MODULES.items():
        source = path.read_text(encoding="utf-8")
        if module == "children":  # it hands the environment on
            source = source.replace("PATIENCE | os.environ", "")
        assert "os.environ" not in source and "os.getenv" not in source, module


def test_nothing_is_pickled() -> None:
    for module, path in MODULES.items():
        for name in imports(path):
            assert name.split(".")[0] not in {"pickle", "cloudpickle", "dill", "shelve"}, module
