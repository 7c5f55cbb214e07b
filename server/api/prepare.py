"""From a checked request to what the engine takes: token ids, pixels, sampling parameters.

Everything that takes long happens in threads: pictures in a pool of their own, so that a flood of
them never delays the tokens of a text. What cannot fit the context is refused before any work is
done on it.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from server import errors
from server.api.conversation import Conversation, Picture, read_conversation
from server.api.sampling import OPENAI_DEFAULTS, choice_params
from server.api.schemas import ChatRequest
from server.frontend.data_url import decode_data_url
from server.frontend.images import ImageLimits, image_digest, load_image
from server.frontend.prompt import Prompt, PromptBuilder
from server.frontend.template import ImageLayout
from server.frontend.tokenizer import Tokenizer
from server.messages import ImageRef, Submit
from server.model.spec import ModelSpec
from server.settings import Settings

PICTURE_THREADS_MAX = 16
INLINE_CHARS_MAX = 8192
"""Longer texts are tokenised in a thread; for shorter ones the hand-over would cost more."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as the engine takes it."""

    prompt: Prompt
    submits: list[Submit]
    """One per choice."""
    pictures: list[bytes]
    """uint8 RGB pixels, height x width x 3, in the order of `prompt.images`."""


class Preparer:
    """Prepares requests for one checkpoint. Close it to end its threads."""

    def __init__(self, settings: Settings, spec: ModelSpec, tokenizer: Tokenizer) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(tokenizer, spec.tokens_per_image, spec.system_message)
        self._image_mode = settings.image_mode
        self._image_limits = ImageLimits(
            max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels
        )
        from_checkpoint = settings.generation_defaults == "model"
        self._defaults = spec.generation if from_checkpoint else OPENAI_DEFAULTS
        self._token_chars_max = max(
            len(tokenizer.token_name(token_id)) for token_id in range(tokenizer.vocab_size)
        )
        cores = len(os.sched_getaffinity(0))
        self._picture_threads = ThreadPoolExecutor(min(cores, PICTURE_THREADS_MAX), "picture")
        self._text_thread = ThreadPoolExecutor(1, "tokenizer")

    def close(self) -> None:
        for threads in (self._picture_threads, self._text_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, request: ChatRequest, max_model_len: int) -> Prepared:
        """
        Args:
            max_model_len: prompt and answer together, in tokens.

        Raises:
            ApiError: 400 for whatever the caller must change.
        """
        stop_ids = self._stop_ids(request)
        conversation = read_conversation(request.messages)
        self._check_size(conversation, max_model_len)
        prompt = await self._tokenise(conversation, _layout(request))
        max_tokens = _room(request, len(prompt.token_ids), max_model_len)
        loaded = await self._load_all(conversation.pictures)
        images = [
            ImageRef(digest, offset, length)
            for (digest, _), (offset, length) in zip(loaded, prompt.images, strict=True)
        ]
        ids = struct.pack(f"<{len(prompt.token_ids)}i", *prompt.token_ids)
        submits = [
            Submit(0, ids, images, sampling, max_tokens, stop_ids)
            for sampling in choice_params(request, self._defaults)
        ]
        return Prepared(prompt, submits, [pixels for _, pixels in loaded])

    def _stop_ids(self, request: ChatRequest) -> list[int]:
        own = request.stop_token_ids or []
        vocab_size = self._spec.text.vocab_size
        for index, token_id in enumerate(own):
            if not 0 <= token_id < vocab_size:
                raise errors.invalid(
                    f"Invalid 'stop_token_ids': expected ids from 0 to {vocab_size - 1}.",
                    param=f"stop_token_ids[{index}]",
                )
        return own if request.ignore_eos else [*self._tokenizer.stop_ids, *own]

    def _check_size(self, conversation: Conversation, max_model_len: int) -> None:
        """Refuses what is too long by its mere size, before it costs anything."""
        pictures = len(conversation.pictures)
        tokens = pictures * self._spec.tokens_per_image
        tokens += conversation.text_chars // self._token_chars_max
        if tokens >= max_model_len:
            raise errors.context_length_exceeded(
                max_model_len,
                f"However, your messages hold {pictures} pictures of "
                f"{self._spec.tokens_per_image} tokens and {conversation.text_chars} characters. "
                "Please shorten the messages.",
            )

    async def _tokenise(self, conversation: Conversation, layout: ImageLayout) -> Prompt:
        if conversation.text_chars <= INLINE_CHARS_MAX:
            return self._builder.build(conversation.turns, layout)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._text_thread, self._builder.build, conversation.turns, layout
        )

    async def _load_all(self, pictures: Sequence[Picture]) -> list[tuple[bytes, bytes]]:
        """(digest, pixels) of each picture. Raises what the first bad one of them raised."""
        loop = asyncio.get_running_loop()
        work = [
            loop.run_in_executor(self._picture_threads, self._load, picture) for picture in pictures
        ]
        loaded = await asyncio.gather(*work, return_exceptions=True)
        return [_or_raise(result) for result in loaded]

    def _load(self, picture: Picture) -> tuple[bytes, bytes]:
        size, limits = self._spec.vision.image_size, self._image_limits
        data = decode_data_url(picture.url, limits, picture.param)
        pixels = load_image(data, size, self._image_mode, limits, picture.param)
        return image_digest(pixels), pixels


def _or_raise(result: tuple[bytes, bytes] | BaseException) -> tuple[bytes, bytes]:
    if isinstance(result, BaseException):
        raise result
    return result


def _layout(request: ChatRequest) -> ImageLayout:
    options = request.mm_processor_kwargs
    return (options.image_layout if options else None) or "separate"


def _room(request: ChatRequest, prompt_tokens: int, max_model_len: int) -> int:
    """Longest answer in tokens.

    Raises:
        ApiError: prompt and answer do not fit the context together.
    """
    asked = request.max_completion_tokens or request.max_tokens
    room = max_model_len - prompt_tokens
    if room < 1:
        raise errors.context_length_exceeded(
            max_model_len,
            f"However, your messages resulted in {prompt_tokens} tokens. "
            "Please shorten the messages.",
        )
    if asked is not None and asked > room:
        raise errors.context_length_exceeded(
            max_model_len,
            f"However, you requested {prompt_tokens + asked} tokens ({prompt_tokens} in the "
            f"messages, {asked} in the completion). Please reduce the length of either.",
        )
    return room if asked is None else asked
