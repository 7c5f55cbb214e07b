"""The bodies of `POST /tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from server.api.schema_base import Model

TokenIds = Annotated[list[int], Field(fail_fast=True, max_length=2**20)]


class TokensRequest(Model):
    model: str | None = None


class TokenizeRequest(TokensRequest):
    prompt: str | None = Field(None, description="Either a text ...")
    messages: list[Any] | None = Field(None, description="... or a conversation.")
    return_token_strs: bool | None = Field(None, description="Send each token's name too.")


class DetokenizeRequest(TokensRequest):
    tokens: TokenIds
