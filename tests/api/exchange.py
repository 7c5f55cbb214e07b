"""A request to any endpoint whose answer is known, and what both sides got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.frontend.tokenizer import Tokenizer
from server.messages import Delta, FinishReason, Submit, TokenLogprob
from tests.api.conftest import Rig
from tests.api.harness import MODEL, chat

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(),
    "/v1/completions": {"model": MODEL, "prompt": "Hi"},
    "/v1/responses": {"model": MODEL, "input": "Hi"},
    "/v1/messages": {"model": MODEL, "messages": chat()["messages"], "max_tokens": 9},
    "/tokenize": {"messages": chat()["messages"]},
    "/detokenize": {"tokens": [5]},
}
"""The shortest request of each endpoint."""
LIKELIEST = TokenLogprob(-0.5, [5, 6], [-0.5, -1.0])


class Exchange:
    """What the engine got for a request and what the client got."""

    def __init__(
        self,
        rig: Rig,
        tokenizer: Tokenizer,
        fields: Mapping[str, Any],
        text: str,
        path: str = "/v1/chat/completions",
    ) -> None:
        ids = tokenizer.encode_text(text)

        def script(submit: Submit) -> list[Delta]:
            scored = submit.sampling.logprobs is not None
            prompt_scored = submit.prompt_logprobs is not None
            last = Delta(
                submit.id,
                [*ids, tokenizer.stop_ids[0]],
                FinishReason.STOP,
                logprobs=[LIKELIEST] * (len(ids) + 1) if scored else None,
                prompt_logprobs=[LIKELIEST] * (len(submit.prompt) // 4 - 1)
                if prompt_scored
                else None,
            )
            return [last]

        rig.engine.script = script
        self.response = rig.api.client.post(path, json={**BODIES[path], **fields})
        self.received = list(rig.engine.received)
        rig.engine.received.clear()

    @property
    def ok(self) -> bool:
        return self.response.status_code == 200

    @property
    def submit(self) -> Submit:
        assert self.ok, self.response.text
        return self.received[0].submit

    @property
    def prompt(self) -> list[int]:
        return self.received[0].prompt

    @property
    def body(self) -> dict[str, Any]:
        assert self.ok, self.response.text
        value: dict[str, Any] = self.response.json()
        return value

    @property
    def choice(self) -> dict[str, Any]:
        value: dict[str, Any] = self.body["choices"][0]
        return value

    @property
    def text(self) -> str:
        """Of the first choice, whatever the endpoint's shape."""
        body = self.body
        if "output" in body:
            return str(body["output"][0]["content"][0]["text"])
        if "content" in body:
            return str(body["content"][0]["text"])
        choice = body["choices"][0]
        return str(choice["message"]["content"] if "message" in choice else choice["text"])
