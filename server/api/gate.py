"""Who may pass: every path needs a key, but for a few that are listed by their exact names.

The path is the one that the routes see, never rebuilt from a URL or a host. Behind the gate the key
is in `request.state.key`.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.anthropic_reply import error_body
from server.api.keys import KeyRing
from server.api.quotas import Quotas
from server.api.responses import error_response, json_response
from server.errors import ApiError

HEALTH_PATHS = frozenset({"/health", "/livez", "/readyz"})
ANTHROPIC_PATH = "/v1/messages"


class Gate:
    """Middleware that answers 401 to whoever has no key, and tells keys what they have left.

    Args:
        open_paths: need no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing,
        quotas: Quotas,
        open_paths: frozenset[str] = HEALTH_PATHS,
    ) -> None:
        self._app = app
        self._keys = keys
        self._quotas = quotas
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        try:
            key = self._keys.find(scope["headers"])
        except ApiError as failure:
            if scope["path"].startswith(ANTHROPIC_PATH):
                body = error_body(failure, scope["state"]["request_id"])
                refusal = json_response(body, failure.status, failure.headers)
            else:
                refusal = error_response(failure)
            await refusal(scope, receive, send)
            return
        scope["state"]["key"] = key

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._quotas.headers(key)]
            await send(message)

        await self._app(scope, receive, send_with_limits)
