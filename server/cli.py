"""The command line: a composition root that turns flags into settings and starts the supervisor."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from server import __version__, client_flags, logs, planner
from server.bench import arguments as bench_arguments
from server.errors import CheckpointError, StartupError
from server.hosts import check_hosts
from server.limits import Limits
from server.listening import Listeners
from server.model.locate import locate, locate_config
from server.settings import ENV_PREFIX, Settings
from server.supervisor import Supervisor
from server.worker import Worker

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = build_parser().parse_args(argv)
    if arguments.command == "plan":
        sys.exit(plan(arguments))
    if arguments.command != "serve":
        sys.exit(run_client(arguments))
    flags = vars(arguments)
    del flags["command"]
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        sys.exit("\n".join(f"internvl-serve: {line}" for line in explain(error)))
    logs.configure(settings.log_level, "main", settings.log_format)
    try:
        sys.exit(serve(settings))
    except StartupError as error:
        log.error("%s", error)
        sys.exit(1)


def run_client(arguments: argparse.Namespace) -> int:
    """Runs a command that talks to a server. A daemon must not load what these need."""
    if arguments.command == "bench":
        from server.bench import command  # noqa: PLC0415

        return command.run(arguments)
    if arguments.command == "top":
        from server import top  # noqa: PLC0415

        return top.run(arguments)
    from server import terminal  # noqa: PLC0415

    return terminal.run(arguments)


def plan(arguments: argparse.Namespace) -> int | str:
    """Prints plans; what cannot be planned is the message to end with."""
    try:
        return planner.run(arguments, locate_config(arguments.model, arguments.revision))
    except (CheckpointError, StartupError) as error:
        return f"internvl-serve: {error}"


def serve(settings: Settings) -> int:
    """Runs the daemon, or this host's part of it, to its end; returns the exit status."""
    check_hosts(settings)
    check_speculation(settings)
    if settings.node_rank > 0:
        return work(settings)
    with ExitStack() as owned:
        workers = settings.api_workers
        public = owned.enter_context(Listeners(settings.host, settings.port, workers))
        log.info("internvl-serve %s on %s", __version__, public.address)
        listeners = [public]
        if settings.ops_port is not None:
            operations = Listeners(settings.ops_host, settings.ops_port, workers)
            listeners.append(owned.enter_context(operations))
            log.info("health, metrics and version on %s", operations.address)
        return Supervisor(settings, locate_model(settings), listeners).run()


def check_speculation(settings: Settings) -> None:
    """
    Raises:
        StartupError: guesses in a layer pipeline, where nobody waits for the tokens of a step.
    """
    if settings.speculate != "off" and settings.pipeline_parallel_size > 1:
        raise StartupError(
            f"--speculate {settings.speculate} does not work in a layer pipeline: leave it or "
            f"--pipeline-parallel-size {settings.pipeline_parallel_size} out"
        )


def work(settings: Settings) -> int:
    """Runs ranks for the head of several hosts."""
    log.info("internvl-serve %s, node %d of %d", __version__, settings.node_rank, settings.nnodes)
    return Worker(settings, locate_model(settings)).run()


def locate_model(settings: Settings) -> Path:
    weights = settings.load_format == "safetensors"
    return locate(settings.model, settings.revision, weights=weights)


def build_parser() -> argparse.ArgumentParser:
    """One flag for each field of the settings; what is not given is left to the environment."""
    parser = argparse.ArgumentParser(
        prog="internvl-serve",
        description="OpenAI-compatible serving daemon for InternVL-Chat-V1-2 and its family.",
    )
    parser.add_argument("--version", action="version", version=f"internvl-serve {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve_command = commands.add_parser("serve", help="serve a model over HTTP")
    planner.add_command(commands)
    client_flags.add_commands(commands)
    bench_arguments.add_command(commands)
    limits = serve_command.add_argument_group("limits")
    for name, field in flagged_fields():
        flag = "--" + name.replace("_", "-")
        help_text = f"{field.description} [{default_text(field)}env: {ENV_PREFIX}{name.upper()}]"
        (limits if name in Limits.model_fields else serve_command).add_argument(
            flag,
            dest=name,
            default=argparse.SUPPRESS,
            help=help_text.replace("%", "%%"),
            **_argument(field),
        )
    return parser


def flagged_fields() -> list[tuple[str, FieldInfo]]:
    """What may be said on the command line: no secrets, which lists of processes would show."""
    return [
        (name, field)
        for name, field in Settings.model_fields.items()
        if field.json_schema_extra != {"flag": False}
    ]


def _argument(field: FieldInfo) -> dict[str, Any]:
    """How argparse takes a field; the values themselves are checked by the settings."""
    if field.annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(field.annotation) is Literal:
        return {"metavar": "|".join(get_args(field.annotation))}
    if get_origin(field.annotation) is tuple:
        return {"action": "append", "metavar": "NAME"}
    text = {str, Path} & {field.annotation, *get_args(field.annotation)}
    return {"metavar": "TEXT" if text else "N"}


def default_text(field: FieldInfo) -> str:
    """The default, where the description does not explain it."""
    return "" if field.default in (None, ()) else f"default: {field.default}, "


def explain(error: ValidationError) -> list[str]:
    """One line for each setting that is wrong, by the name of its flag."""
    lines = []
    for detail in error.errors():
        name = str(detail["loc"][0])
        given = str(detail["input"])
        lines.append(
            f"--{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()}): {detail['msg']}, "
            f"got {given[:80]!r}"
        )
    return lines


if __name__ == "__main__":
    main()
