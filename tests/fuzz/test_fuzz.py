"""A little of each target with what `make test` has; `make fuzz` goes on for as long as it is told
to, guided by coverage."""

from __future__ import annotations

import random

from tests.fuzz import data_urls, pictures, requests
from tests.fuzz.target import Target


def mutations(target: Target, count: int) -> list[bytes]:
    """Seeds with some bytes changed, doubled or cut; the same in each run."""
    source = random.Random(target.name)
    inputs = list(target.seeds)
    while len(inputs) < count:
        data = bytearray(source.choice(target.seeds))
        for _ in range(source.randint(1, 4)):
            place = source.randrange(len(data) + 1)
            data[place : place + source.randint(0, 3)] = source.randbytes(source.randint(0, 3))
        inputs.append(bytes(data))
    return inputs


def test_pictures() -> None:
    for data in mutations(pictures.TARGET, 150):
        pictures.try_one(data)


def test_data_urls() -> None:
    for data in mutations(data_urls.TARGET, 1000):
        data_urls.try_one(data)


def test_requests() -> None:
    requests.search(examples=30, seed=0)
