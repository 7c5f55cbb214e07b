"""A step that was too much for the memory: who caused it, and what they are told."""

from __future__ import annotations

from collections.abc import Sequence

from server.engine.launched import LaunchedRow
from server.engine.request import Request, Status
from server.messages import Delta, FinishReason

OUT_OF_MEMORY = (
    "The device ran out of memory in a step that read this request. "
    "Send fewer pictures or a shorter prompt at a time."
)


def culprits(rows: Sequence[LaunchedRow], *, encoding: bool) -> list[Request]:
    """Whose part of a step was too much: pictures where they were being encoded, else prompts, else
    the last in rank. Of these, whoever has ended is not named, and nobody in its place."""
    encoded = [row.request for row in rows if encoding and row.encodes]
    prompts = [row.request for row in rows if row.prompt]
    guilty = encoded or prompts or [max((row.request for row in rows), key=lambda r: r.rank)]
    return [request for request in guilty if request.status is not Status.FINISHED]


def refusals(guilty: Sequence[Request]) -> list[tuple[bytes, Delta]]:
    """The end of each of them, with its peer."""
    return [
        (request.peer, Delta(request.id, [], FinishReason.ERROR, error=OUT_OF_MEMORY))
        for request in guilty
    ]
