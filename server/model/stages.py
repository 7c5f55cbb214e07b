"""The layer pipeline: which stage a rank belongs to and whom it works with. Pure arithmetic.

Ranks are numbered from the last stage to the first, so that rank 0, which leads, is where tokens
are drawn: results need no way of their own.
"""

from __future__ import annotations

from server.distributed.peers import Peers
from server.errors import StartupError


def stage_of(rank: int, tp: int, stages: int) -> int:
    return stages - 1 - rank // tp


def peers_of(rank: int, tp: int, vision_tp: int, stages: int) -> Peers:
    """Whom `rank` works with when `stages` stages have `tp` ranks each. Only ranks of one place in
    their stages exchange hidden states and tokens."""
    stage, place = stage_of(rank, tp, stages), rank % tp
    first = rank - place
    tower = first + place // vision_tp * vision_tp
    staged = stages > 1
    last_stage = stage == stages - 1
    sees = stage == 0
    return Peers(
        model=range(first, first + tp),
        vision=range(tower, tower + vision_tp) if sees else (rank,),
        towers=range(first + place % vision_tp, first + tp, vision_tp) if sees else (rank,),
        previous=None if sees else rank + tp,
        next=None if last_stage else rank - tp,
        tokens_from=place if staged and sees else None,
        tokens_to=(stages - 1) * tp + place if staged and last_stage else None,
    )


def check_stages(stages: int, num_layers: int) -> None:
    """
    Raises:
        StartupError: there are more stages than layers.
    """
    if not 1 <= stages <= num_layers:
        raise StartupError(
            f"{stages} stages cannot share {num_layers} layers: use --pipeline-parallel-size "
            f"{num_layers} at most"
        )
