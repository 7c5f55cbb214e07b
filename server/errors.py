"""Every failure a client can see, and the OpenAI error body it becomes.

A user's mistake is raised as `ApiError` where it is found, with a message that names the field, the
limit and what to do; the HTTP border turns it into a response without looking inside. Messages are
our own words: nothing a library said, no path, no pointer ever reaches a client.
"""

from __future__ import annotations

from typing import Any

MESSAGE_CHARS_MAX = 300

CLOSE = {"connection": "close"}
"""For errors after which the rest of the request is not worth reading."""


class ApiError(Exception):
    """A failure with an HTTP status and OpenAI's error body.

    Args:
        status: HTTP status code.
        code: OpenAI's string code, e.g. ``invalid_value``.
        message: one sentence for the caller.
        param: path of the offending field, e.g. ``messages[0].content[1].image_url.url``.
        retry_after_s: for 429 and 503, when a new attempt makes sense.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message[:MESSAGE_CHARS_MAX]
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)

    @property
    def type(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def invalid(message: str, *, param: str | None, code: str = "invalid_value") -> ApiError:
    """400: the caller must change the request."""
    return ApiError(400, code, message, param=param)


def context_length_exceeded(limit_tokens: int, message: str, param: str = "messages") -> ApiError:
    """400 that begins with OpenAI's own words: clients recognise the case by them."""
    return ApiError(
        400,
        "context_length_exceeded",
        f"This model's maximum context length is {limit_tokens} tokens. {message}",
        param=param,
    )


def headers_too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        431,
        "headers_too_large",
        f"The header fields are larger than {limit_bytes} bytes, the limit of this server.",
        headers=CLOSE,
    )


def model_loading(retry_after_s: int = 5) -> ApiError:
    return ApiError(
        503,
        "model_loading",
        "The model is not loaded yet. Try again when /readyz answers 200.",
        retry_after_s=retry_after_s,
    )


def engine_restarted() -> ApiError:
    return ApiError(
        503,
        "engine_restarted",
        "The engine stopped while this request ran and is being restarted. Send the request again.",
        retry_after_s=2,
    )


def engine_died() -> ApiError:
    return ApiError(
        503,
        "engine_died",
        "The engine died in a step that computed this request, and is being restarted. The request "
        "may be the cause, so it should not be sent again without a look at it.",
        headers={"x-should-retry": "false"},
    )


def quarantined(period_s: float) -> ApiError:
    return ApiError(
        400,
        "request_quarantined",
        "The engine has died repeatedly while it computed this input. It is not taken again within "
        f"{period_s:.0f} s of the last time (--quarantine-s); change the text or the pictures.",
        headers={"x-should-retry": "false"},
    )


def engine_stalled() -> ApiError:
    return ApiError(503, "engine_stalled", "The engine does not move.", retry_after_s=10)


def shutting_down() -> ApiError:
    return ApiError(503, "server_shutting_down", "The server is shutting down.", retry_after_s=5)


class CheckpointError(Exception):
    """The checkpoint cannot be served; the message names the file, key or shape that is wrong."""


class StartupError(Exception):
    """The daemon cannot start with these settings here; the message says what to change."""
