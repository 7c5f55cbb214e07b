"""One training run: its state in memory and on disk, its steps, and what it exports.

The state is tensors by name in one safetensors file. A run that goes on from it takes the same
steps as one that was never interrupted: batches follow from seed and step alone.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.pool import AsyncResult
from pathlib import Path

import torch
import torch.multiprocessing
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor
from tqdm import tqdm

from server.demo import tokenizer
from server.demo.examples import Batch, Batches, Recipe
from server.demo.fused import FusedOps
from server.demo.layout import CheckpointShape, write_json_files
from server.demo.network import HEADS, TOWER, Losses, Network, Teaches
from server.demo.optimiser import Optimiser
from server.demo.questions import Category
from server.frontend.prompt import IMAGE_CONTEXT
from server.frontend.tokenizer import Tokenizer
from server.kernels.cpu.tiles import multiplies_bfloat16
from server.model.spec import ModelSpec
from server.model.weights import SINGLE_NAME

WARM_UP_STEPS = 30
AVERAGE_STEPS = 50
"""Over about so many steps the exported weights are averaged."""
PATCH_LOSS, MENTION_LOSS = 1.0, 0.3
"""Weights beside the loss of the answers."""
LOSSES = ("answers", "patches", "mentions")
DRAWN_TOGETHER = 16
"""Batches: a hundred megabytes."""
SAVE_S = 150.0
STATE = "state.safetensors"
LOG = "log.jsonl"

Drawing = AsyncResult[list[Batch]]


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps on one kind of batch."""

    recipe: Recipe
    steps: int
    teaches: Teaches = "each alone"
    rates: tuple[float, float] = (1.0, 1.0)
    """Parts of the full learning rate, at the beginning of the stage and behind its end."""

    def longer(self, times: int) -> Stage:
        return replace(self, steps=times * self.steps)

    def rate(self, step: int) -> float:
        """Part of the full learning rate at a step of the stage, from 0."""
        first, last = self.rates
        rate = first + (last - first) * step / self.steps
        return rate * min(1.0, (step + 1) / WARM_UP_STEPS)


class Training:
    def __init__(
        self,
        run: Path,
        shape: CheckpointShape,
        seed: int,
        device: torch.device,
        *,
        compiles: bool = False,
    ) -> None:
        """Goes on with what is in the folder `run`, or begins there.

        Args:
            compiles: has `FusedOps` compiled first.
        """
        self.steps_done = 0
        self._run = run
        self._shape = shape
        self._seed = seed
        self._device = device
        self._mixed = device.type == "cuda" or multiplies_bfloat16()
        run.mkdir(parents=True, exist_ok=True)
        stored = run / "tokenizer.model"
        # Weights belong to the tokenizer that they were trained with.
        self._vocabulary = stored.read_bytes() if stored.exists() else tokenizer.train()
        self._write_folder(run)
        self._tokenizer = Tokenizer.load(run)
        self._spec = ModelSpec.load(run)
        picture_token = self._tokenizer.control_id(IMAGE_CONTEXT)
        products = torch.bfloat16 if self._mixed else torch.float32
        ops = FusedOps(products) if compiles else None
        self._network = Network(self._spec, picture_token, seed, device, ops)
        self._weights = self._network.weights()
        self._average = {name: weight.clone() for name, weight in self._weights.items()}
        gradients = self._network.gradients()
        self._optimiser = Optimiser(self._weights, gradients, mixed=self._mixed)
        if (run / STATE).exists():
            self._load()

    def _write_folder(self, folder: Path) -> None:
        write_json_files(folder, self._shape)
        (folder / "tokenizer.model").write_bytes(self._vocabulary)

    def stage(self, stage: Stage, first_step: int, workers: int) -> None:
        """Takes the steps of a stage that are not taken yet; `first_step` is its first."""
        end = first_step + stage.steps
        batches = Batches(stage.recipe, self._spec, self._tokenizer, f"train-{self._seed}")
        steps = range(self.steps_done, end)
        drawn = _drawn(batches, steps, workers, ahead=self._device.type != "cpu")
        report = Report(self._run / LOG)
        bar = tqdm(drawn, total=end, initial=self.steps_done, desc=f"{stage.recipe.size_px} px")
        saved_at = time.monotonic()
        for batch in bar:
            rate = stage.rate(self.steps_done - first_step)
            losses = self._step(_to(batch, self._device), rate, stage.teaches)
            report.add(self.steps_done, batch, losses)
            bar.set_postfix_str(report.summary, refresh=False)
            if time.monotonic() > saved_at + SAVE_S:
                self.save()
                saved_at = time.monotonic()
        self.save()

    def _step(self, batch: Batch, rate: float, teaches: Teaches) -> Losses:
        with torch.autocast(self._device.type, torch.bfloat16, self._mixed):
            losses = self._network.losses(batch, teaches)
        self._network.clear_gradients()
        total = losses.answers + PATCH_LOSS * losses.patches + MENTION_LOSS * losses.mentions
        torch.autograd.backward(total)
        self.steps_done += 1
        resting = TOWER if teaches == "language" else ()
        self._optimiser.step(self.steps_done, rate, resting)
        with torch.no_grad():
            for name, average in self._average.items():
                average.lerp_(self._weights[name], 1 / min(AVERAGE_STEPS, self.steps_done))
        return losses

    def _state(self) -> dict[str, Tensor]:
        state = {f"weight.{name}": weight for name, weight in self._weights.items()}
        state |= {f"average.{name}": average for name, average in self._average.items()}
        return state | dict(self._optimiser.state)

    def save(self) -> None:
        state = {name: tensor.detach().contiguous() for name, tensor in self._state().items()}
        unfinished = self._run / "unfinished.safetensors"
        save_file(state, unfinished, metadata={"steps_done": str(self.steps_done)})
        unfinished.replace(self._run / STATE)

    @torch.no_grad()
    def _load(self) -> None:
        with safe_open(self._run / STATE, framework="pt") as file:
            self.steps_done = int(file.metadata()["steps_done"])
        stored = load_file(self._run / STATE)
        for name, tensor in self._state().items():
            tensor.copy_(stored[name])

    def export(self, folder: Path) -> None:
        """Writes a checkpoint of the averaged weights, in bfloat16."""
        folder.mkdir(parents=True, exist_ok=True)
        self._write_folder(folder)
        weights = {
            name: average.to("cpu", torch.bfloat16).contiguous()
            for name, average in self._average.items()
            if name not in HEADS
        }
        content = save(weights, metadata={"format": "pt"})
        (folder / SINGLE_NAME).write_bytes(content)


def _drawn(batches: Batches, steps: range, workers: int, *, ahead: bool) -> Iterator[Batch]:
    """The batches of some steps, drawn by several processes.

    Args:
        ahead: has the next ones drawn meanwhile. Not on a CPU: beside a step, drawing takes more
            from it than it takes alone.
    """
    with torch.multiprocessing.Pool(workers, torch.set_num_threads, (1,)) as pool:
        share = -(-DRAWN_TOGETHER // workers)
        parts = (steps[at : at + DRAWN_TOGETHER] for at in range(0, len(steps), DRAWN_TOGETHER))
        coming = (pool.map_async(batches.__getitem__, part, share) for part in parts)
        for drawing in _started_early(coming) if ahead else coming:
            yield from drawing.get()


def _started_early(drawings: Iterator[Drawing]) -> Iterator[Drawing]:
    """Takes each one when the one before is handed over."""
    before = next(drawings)
    for drawing in drawings:
        yield before
        before = drawing
    yield before


class Report:
    """Running losses and shares of right answers, always on batches that were never seen before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._losses: deque[tuple[float, float, float]] = deque(maxlen=20)
        self._right: defaultdict[Category, deque[bool]] = defaultdict(lambda: deque(maxlen=500))
        self._started_at = time.monotonic()
        self.summary = ""

    def add(self, step: int, batch: Batch, losses: Losses) -> None:
        answers, patches, mentions = losses.answers, losses.patches, losses.mentions
        self._losses.append((answers.item(), patches.item(), mentions.item()))
        for categories, right in zip(batch.categories, losses.right.tolist(), strict=True):
            for category, answered in zip(categories, right, strict=False):
                self._right[category].append(answered)
        sums = (sum(loss) for loss in zip(*self._losses, strict=True))
        rounded = (round(total / len(self._losses), 4) for total in sums)
        means = dict(zip(LOSSES, rounded, strict=True))
        self.summary = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        if step % 20 == 0:
            shares = {name: round(sum(r) / len(r), 3) for name, r in self._right.items()}
            stage_s = round(time.monotonic() - self._started_at, 1)
            line = {"step": step, "stage_s": stage_s, **means, "right": shares}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _to(batch: Batch, device: torch.device) -> Batch:
    return replace(
        batch,
        pixels=batch.pixels.to(device),
        patches=batch.patches.to(device),
        turned=batch.turned.to(device),
        token_ids=batch.token_ids.to(device),
        positions=batch.positions.to(device),
        branches=batch.branches.to(device),
        targets=batch.targets.to(device),
        mentions=batch.mentions.to(device),
    )
