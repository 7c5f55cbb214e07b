"""Whatever is posted to whatever endpoint, the answer is one that an API gives: the request would
reach the engine, or an error in OpenAI's or Anthropic's shape that is no fault of the server.

hypothesis makes the bodies: the examples of every honoured field, mixed, cut, and mutated. The
application is the real one, in this process, without a socket.
"""

from __future__ import annotations

import asyncio
import atexit
import tempfile
from collections.abc import MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.api.app import create_app
from server.api.client import EngineClient
from server.api.service import Service
from server.api.submission import Submission
from server.errors import ApiError
from server.frontend.grammar_check import GrammarChecker
from server.heartbeat import Heartbeat
from server.ipc import ApiEndpoint
from server.limits import Limits
from server.messages import Grammar, Ready
from server.settings import Settings
from tests.api.endpoint_examples import OWN
from tests.api.examples import EXAMPLES
from tests.api.exchange import BODIES
from tests.api.harness import MODEL
from tests.golden import CHECKPOINT

REACHED = "reached_the_engine"


class NoEngine(EngineClient):
    """Would send what it is given."""

    def submit(self, *_: Any, **__: Any) -> Submission:
        raise ApiError(418, REACHED, "It would be answered now.")


class AnyGrammar(GrammarChecker):
    """Leaves out the process that builds grammars."""

    def check(self, grammar: Grammar, param: str) -> None:
        msgspec.json.encode(grammar)


@cache
def application() -> tuple[FastAPI, asyncio.Runner]:
    folder = tempfile.TemporaryDirectory()
    endpoint = ApiEndpoint(Path(folder.name), "fuzz")
    client = NoEngine(endpoint, Limits())
    client.ready = Ready(1024, 4, 64, 16, 256, "float32", "cpu", 1)
    # Videos are refused by their size: what decodes them has tests of its own.
    options: dict[str, Any] = {
        "model": str(CHECKPOINT),
        "served_model_name": (MODEL,),
        "max_video_bytes": 99,
    }
    service = Service.load(Settings(**options), CHECKPOINT, client, Heartbeat(Path(folder.name)))
    service.preparer._checker = AnyGrammar(CHECKPOINT, 1)
    runner = asyncio.Runner()
    for end in (folder.cleanup, endpoint.close, service.preparer.close, runner.close):
        atexit.register(end)
    return create_app(service), runner


def post(path: str, body: bytes) -> tuple[int, Any]:
    """Status and decoded body of the answer."""
    app, runner = application()
    said: list[Any] = []

    async def receive() -> MutableMapping[str, Any]:
        if not sent.is_set():
            sent.set()
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"a"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
    }
    sent = asyncio.Event()
    runner.run(app(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in said)
    return said[0]["status"], msgspec.json.decode(content)


def check(path: str, body: bytes) -> None:
    status, answer = post(path, body)
    error = answer.get("error")
    if status == 200:
        assert not error, answer
        return
    assert status in {400, 404, 413, 418, 429}, (status, answer)
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) <= 300
    assert error["type"]
    msgspec.json.encode(answer).decode()


Json = Any
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2, 20, 2**31, 2**63, 2**64]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["", "text", "user", "tool", "auto", "object", "json_schema", "\0", "<|im_end|>"]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


def _fields(path: str) -> dict[str, list[Json]]:
    """Values that each field of an endpoint has in examples."""
    examples = {**(EXAMPLES if path != "/detokenize" else {}), **OWN.get(path, {})}
    fields: dict[str, list[Json]] = {}
    for body, *_ in examples.values():
        for name, value in body.items():
            fields.setdefault(name, []).append(value)
    return fields


FIELDS = {path: _fields(path) for path in BODIES}


@st.composite
def mutated(draw: st.DrawFn, value: Json, depth: int = 0) -> Json:
    """The value with something else in one place of it, or nearly itself."""
    if depth == 6 or draw(st.integers(0, 5)) == 0:
        return draw(anything)
    if isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {key: inner for key, inner in value.items() if key != name}
        return {**value, name: draw(mutated(value[name], depth + 1))}
    if isinstance(value, list) and value:
        index = draw(st.integers(0, len(value) - 1))
        changed = draw(mutated(value[index], depth + 1))
        return [*value[:index], changed, *value[index + draw(st.integers(0, 1)) :]]
    if isinstance(value, str) and value:
        begin, end = draw(st.integers(0, len(value))), draw(st.integers(0, len(value)))
        return value[:begin] + draw(st.text(max_size=3)) + value[end:]
    return draw(anything)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Json]:
    """An endpoint and a body that it may know something of."""
    path = draw(st.sampled_from(sorted(BODIES)))
    fields, body = FIELDS[path], dict(BODIES[path])
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=4)):
        value = draw(st.sampled_from(fields[name]))
        body[name] = draw(st.one_of(st.just(value), mutated(value)))
    if draw(st.integers(0, 3)) == 0:
        body = draw(mutated(body))
    return path, body


def _fits(body: Json) -> bool:
    """What JSON cannot hold is sent as it looks in Python: no JSON, mostly."""
    try:
        msgspec.json.encode(body)
    except (OverflowError, UnicodeEncodeError, ValueError):
        return False
    return True


def try_request(request: tuple[str, Json]) -> None:
    path, body = request
    check(path, msgspec.json.encode(body) if _fits(body) else str(body).encode(errors="replace"))


def search(examples: int, seed: int) -> None:
    """Tries so many requests, others for each seed; raises what the shortest bad one raised."""
    options = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(seed)(options(given(requests())(try_request)))()
