"""Each honoured field of each endpoint changes what the engine gets or what comes out; a field
without an example here or among chat's fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.api.capabilities import ENDPOINTS
from server.api.parameters import Support
from server.frontend.tokenizer import Tokenizer
from tests.api.conftest import Rig
from tests.api.endpoint_examples import OWN, Example, count
from tests.api.examples import EXAMPLES, TEXT
from tests.api.exchange import Exchange

CHAT = ENDPOINTS[0].table


def example(path: str, name: str) -> Example | None:
    """A field of a conversation that is only counted changes the count."""
    if name in OWN[path]:
        return OWN[path][name]
    if name in EXAMPLES and path == "/tokenize":
        return EXAMPLES[name][0], count, ...
    return EXAMPLES.get(name)


def honoured() -> Iterator[Any]:
    for endpoint in ENDPOINTS[1:]:
        path = endpoint.table.path
        for row in endpoint.table.rows:
            if row.support is Support.HONOURED:
                yield pytest.param(path, row.name, id=f"{path} {row.name}")


@pytest.mark.parametrize(("path", "name"), list(honoured()))
def test_honoured(rig: Rig, tokenizer: Tokenizer, path: str, name: str) -> None:
    found = example(path, name)
    assert found is not None, "a field of the table without an example"
    fields, see, expected = found
    seen = see(Exchange(rig, tokenizer, fields, TEXT, path))
    if expected is ...:
        assert seen != see(Exchange(rig, tokenizer, {}, TEXT, path))
    else:
        assert seen == expected


def test_every_example_is_of_a_field_that_is_there() -> None:
    for endpoint in ENDPOINTS[1:]:
        assert OWN[endpoint.table.path].keys() <= endpoint.table.by_name.keys()
