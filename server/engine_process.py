"""The engine process and the processes of further ranks: a composition root, started by the
supervisor. Rank 0 decides, the others follow."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from server import host
from server.child import Assignment, run_child
from server.distributed.meeting import Meeting
from server.distributed.plans import OrderReceiver, OrderSender, local_address, remote_address
from server.engine.grammar import GrammarCompiler
from server.engine.loop import Engine
from server.engine.scheduler import Scheduler
from server.engine.step_budget import StepBudget
from server.frontend.matchers import matcher_factory
from server.frontend.tokenizer import Tokenizer
from server.heartbeat import TURN_S, Heartbeat
from server.in_flight import InFlight
from server.ipc import EngineEndpoint
from server.messages import Ready
from server.model.spec import ModelSpec
from server.runner.build import (
    RankPlace,
    build_rank,
    choose_device,
    choose_dtype,
    meet,
    settle_budget,
    target_step_s,
    with_memory,
)
from server.runner.device_faults import is_device_lost
from server.runner.null import TEXT, NullRunner, null_limits
from server.runner.ranks import Follower, Leader, PlanLostError
from server.runner.runner import LocalRunner
from server.runner.towers import settle_towers
from server.settings import Settings

EXIT_DEVICE_LOST = EXIT_PLAN_LOST = 1
AnyRunner = LocalRunner | Leader | NullRunner

log = logging.getLogger(__name__)


def run_engine(assignment: Assignment) -> None:
    signal.signal(signal.SIGTERM, _exit)
    settings, checkpoint = assignment.parsed_settings(), Path(assignment.checkpoint)
    run_dir = Path(assignment.run_dir)
    in_flight = InFlight(run_dir)
    vocab_size = ModelSpec.load(checkpoint).text.vocab_size
    compiler = GrammarCompiler(matcher_factory(Tokenizer.load(checkpoint), vocab_size))
    runner, settings = build_runner(assignment, settings)
    try:
        ready = describe(runner, settings, checkpoint)
        ready = msgspec.structs.replace(ready, restarts=assignment.restarts)
        host.give_back()
        for line in summary(assignment, ready):
            log.info("%s", line)
        Engine(
            runner,
            EngineEndpoint(run_dir),
            Scheduler(
                runner.limits,
                prefix_cache=settings.prefix_cache,
                speculate=settings.speculate == "ngram",
            ),
            compiler,
            ready,
            budget=make_budget(runner, settings),
            check_integrity=settings.check_integrity,
            beat=Heartbeat(run_dir).beat,
            note_in_flight=in_flight.note,
            turn_s=TURN_S,
        ).run()
    except Exception as error:
        _end_if_the_device_is_lost(error)
        raise
    finally:
        compiler.close()
        runner.close()


def describe(runner: AnyRunner, settings: Settings, checkpoint: Path) -> Ready:
    """What API processes are told of a runner, whose step budget is settled here."""
    if isinstance(runner, NullRunner):
        return runner.describe()
    settle_budget(runner, settings)
    return with_memory(runner.describe(), settings, checkpoint)


def make_budget(runner: AnyRunner, settings: Settings) -> StepBudget | None:
    """None where the operator has chosen one, and where nothing is computed that takes time."""
    if settings.step_token_budget is not None or isinstance(runner, NullRunner):
        return None
    return StepBudget(runner.limits, target_step_s(settings))


def build_null_runner(settings: Settings, checkpoint: Path) -> NullRunner:
    log.warning("--load-format null: there is NO MODEL, every answer is the same text")
    limits = null_limits(settings, ModelSpec.load(checkpoint))
    script = Tokenizer.load(checkpoint).encode_text(TEXT)
    return NullRunner(limits, script, settings.null_step_ms / 1000)


def build_runner(assignment: Assignment, settings: Settings) -> tuple[AnyRunner, Settings]:
    """A runner, and the settings with what the ranks have agreed on."""
    if settings.load_format == "null":
        return build_null_runner(settings, Path(assignment.checkpoint)), settings
    where, meeting, settings = join(assignment, settings)
    local = build_rank(settings, Path(assignment.checkpoint), where, meeting)
    if meeting is None:
        return local, settings
    return Leader(local, open_orders(assignment, where, meeting), where.ranks), settings


def join(assignment: Assignment, settings: Settings) -> tuple[RankPlace, Meeting | None, Settings]:
    """Meets the other ranks, if there are any, and settles with them what is left open."""
    where = place_of(assignment, settings)
    meeting = meet(settings, where, assignment.place)
    spec = ModelSpec.load(Path(assignment.checkpoint))
    device = choose_device(settings.device, where.local_rank)
    dtype = choose_dtype(settings.dtype, spec.dtype, device)
    settings = settle_towers(settings, spec, meeting, rank=where.rank, device=device, dtype=dtype)
    return where, meeting, settings


def run_follower(assignment: Assignment) -> None:
    signal.signal(signal.SIGTERM, _exit)
    settings, checkpoint = assignment.parsed_settings(), Path(assignment.checkpoint)
    where, meeting, settings = join(assignment, settings)
    assert meeting is not None
    runner = build_rank(settings, checkpoint, where, meeting)
    receiver = OrderReceiver(meeting.ask(f"orders-{where.rank}"))
    log.info("ready: rank %d of %d", where.rank, where.ranks)
    try:
        Follower(runner, receiver, Heartbeat(Path(assignment.run_dir), assignment.name)).run()
    except PlanLostError as error:
        log.error("rank %d: %s", where.rank, error)
        sys.exit(EXIT_PLAN_LOST)
    except Exception as error:
        _end_if_the_device_is_lost(error)
        raise
    finally:
        runner.close()


def open_orders(assignment: Assignment, where: RankPlace, meeting: Meeting) -> OrderSender:
    """Opens a socket for each of the other ranks and tells them where it is."""
    run_dir, ranks = Path(assignment.run_dir), range(1, where.ranks)
    sender = OrderSender(
        [
            local_address(run_dir, rank)
            if rank < where.local_ranks
            else remote_address(meeting.address)
            for rank in ranks
        ]
    )
    for rank, endpoint in zip(ranks, sender.endpoints, strict=True):
        meeting.tell(f"orders-{rank}", endpoint)
    return sender


def place_of(assignment: Assignment, settings: Settings) -> RankPlace:
    local_ranks = settings.ranks // settings.nnodes
    return RankPlace(assignment.rank, assignment.rank % local_ranks, local_ranks, settings.ranks)


def run(assignment: Assignment) -> None:
    # The supervisor aborts an engine that hangs: then the log shows where.
    faulthandler.enable()
    if assignment.rank == 0:
        run_engine(assignment)
    else:
        run_follower(assignment)


def summary(assignment: Assignment, ready: Ready) -> list[str]:
    """What the operator should know once the model is loaded."""
    kv_tokens = ready.kv_blocks * ready.kv_block_size
    rows = {
        "model": ", ".join(assignment.parsed_settings().names()),
        "dtype": f"{ready.dtype} on {ready.device}, quantization {ready.quantization}",
        "ranks": f"{ready.ranks}, stages {ready.stages}, ranks of a tower {ready.vision_tp}",
        "weights": f"{_gib(ready.weights_bytes)} GiB a rank",
        "KV cache": f"{ready.kv_blocks} blocks of {ready.kv_block_size} tokens, "
        f"{kv_tokens / ready.max_model_len:.1f} full contexts of {ready.max_model_len}, "
        f"{_gib(ready.kv_bytes)} GiB a rank",
        "activations": f"{_gib(ready.activations_bytes)} GiB a rank at most",
        "step budget": f"{ready.step_token_budget} tokens, {ready.max_num_seqs} requests",
        "address": assignment.address,
    }
    return ["ready", *(f"  {name:<12} {value}" for name, value in rows.items())]


def _gib(sizes_bytes: Sequence[int]) -> str:
    """One number where all are equal as printed, else one for each."""
    numbers = [f"{size / 2**30:.2f}" for size in sizes_bytes]
    return numbers[0] if len(set(numbers)) == 1 else ", ".join(numbers)


def _end_if_the_device_is_lost(error: Exception) -> None:
    """Ends at once: whoever asks a device that is gone to give something back may wait for ever."""
    if is_device_lost(error):
        reason = str(error).partition("\n")[0]
        log.error("the device is lost (%s): this process ends, and another one is started", reason)
        logging.shutdown()
        os._exit(EXIT_DEVICE_LOST)


def _exit(*_: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    run_child(run)
