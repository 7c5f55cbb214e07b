"""From a checked request to what the engine takes: token ids, pixels, sampling parameters.

Everything that takes long happens in threads: pictures in a pool of their own, so that a flood of
them never delays the tokens of a text. What cannot fit the context is refused before any work is
done on it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from server import errors
from server.api.answer_form import Form, read_chat_form
from server.api.conversation import Conversation, Picture, read_conversation
from server.api.engine_request import EngineRequests
from server.api.schemas import ChatRequest
from server.api.text_prompts import INLINE_CHARS_MAX, TextPrompts, check_countable
from server.api.tool_use import ToolUse, read_tool_use
from server.frontend.data_url import decode_data_url
from server.frontend.grammar import GrammarChecker
from server.frontend.images import ImageLimits, image_digest, load_image
from server.frontend.prompt import Prompt, PromptBuilder
from server.frontend.template import Ending, ImageLayout
from server.frontend.tokenizer import Tokenizer
from server.frontend.tools import system_block
from server.messages import Grammar, Submit
from server.model.spec import ModelSpec
from server.settings import Settings

PICTURE_THREADS_MAX = 16
GRAMMAR_THREADS = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as the engine takes it."""

    prompt: Prompt
    submits: list[Submit]
    """One per choice."""
    pictures: list[bytes]
    """uint8 RGB pixels, height x width x 3, in the order of `prompt.images`."""
    tools: ToolUse | None = None
    """What the answer may call."""


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
        self._engine_requests = EngineRequests(settings, spec, tokenizer)
        self._token_chars_max = max(
            len(tokenizer.token_name(token_id)) for token_id in range(tokenizer.vocab_size)
        )
        cores = len(os.sched_getaffinity(0))
        self._picture_threads = ThreadPoolExecutor(min(cores, PICTURE_THREADS_MAX), "picture")
        self._text_thread = ThreadPoolExecutor(1, "tokenizer")
        self.texts = TextPrompts(
            tokenizer, self._engine_requests, self._text_thread, self._token_chars_max
        )
        self._checker = GrammarChecker()
        self._grammar_threads = ThreadPoolExecutor(GRAMMAR_THREADS, "grammar")

    def close(self) -> None:
        for threads in (self._picture_threads, self._text_thread, self._grammar_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, request: ChatRequest, max_model_len: int) -> Prepared:
        """
        Args:
            max_model_len: prompt and answer together, in tokens.

        Raises:
            ApiError: 400 for whatever the caller must change.
        """
        self._engine_requests.check(request)
        tools = read_tool_use(request)
        conversation = _conversation(request, tools)
        self._check_size(conversation, max_model_len)
        grammar = await self._grammar(request, tools)
        prompt = await self._tokenise(conversation, _layout(request), _ending(request))
        max_tokens = _room(request, len(prompt.token_ids), max_model_len)
        loaded = await self._load_all(conversation.pictures)
        digests = [digest for digest, _ in loaded]
        submits = self._engine_requests.build(request, prompt, digests, max_tokens, grammar)
        return Prepared(prompt, submits, [pixels for _, pixels in loaded], tools)

    async def prompt(self, request: ChatRequest) -> Prompt:
        """The prompt alone, to be counted: it may be longer than the context.

        Raises:
            ApiError: 400, also for one that is so long that nobody can need its count.
        """
        conversation = _conversation(request, read_tool_use(request))
        pictures = len(conversation.pictures) * self._spec.tokens_per_image
        check_countable(conversation.text_chars + pictures, "messages")
        return await self._tokenise(conversation, _layout(request), _ending(request))

    async def fits(self, request: ChatRequest, tokens_max: int) -> bool:
        """Whether the prompt has so many tokens at most."""
        conversation = _conversation(request, read_tool_use(request))
        if self._tokens_at_least(conversation) > tokens_max:
            return False
        prompt = await self._tokenise(conversation, _layout(request), _ending(request))
        return len(prompt.token_ids) <= tokens_max

    def _tokens_at_least(self, conversation: Conversation) -> int:
        """What the prompt has by its mere size, before it costs anything to know more."""
        pictures = len(conversation.pictures) * self._spec.tokens_per_image
        return pictures + conversation.text_chars // self._token_chars_max

    def _check_size(self, conversation: Conversation, max_model_len: int) -> None:
        if self._tokens_at_least(conversation) >= max_model_len:
            raise errors.context_length_exceeded(
                max_model_len,
                f"However, your messages hold {len(conversation.pictures)} pictures of "
                f"{self._spec.tokens_per_image} tokens and {conversation.text_chars} characters. "
                "Please shorten the messages.",
            )

    async def form_grammar(self, read: Callable[[], Form | None]) -> Grammar | None:
        """The grammar of a form, read and checked in a thread.

        Raises:
            ApiError: 400; what `read` raised, or that the grammar cannot be built.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._grammar_threads, self._checked_grammar, read)

    async def _grammar(self, request: ChatRequest, tools: ToolUse | None) -> Grammar | None:
        if not (tools or request.response_format or request.structured_outputs):
            return None
        return await self.form_grammar(lambda: read_chat_form(request, tools))

    def _checked_grammar(self, read: Callable[[], Form | None]) -> Grammar | None:
        form = read()
        if form is None:
            return None
        self._checker.check(form.grammar, form.param)
        return form.grammar

    async def _tokenise(
        self, conversation: Conversation, layout: ImageLayout, ending: Ending
    ) -> Prompt:
        build = functools.partial(
            self._builder.build,
            conversation.turns,
            layout,
            system_suffix=conversation.system_suffix,
            ending=ending,
        )
        if conversation.text_chars <= INLINE_CHARS_MAX:
            return build()
        return await asyncio.get_running_loop().run_in_executor(self._text_thread, build)

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


def _conversation(request: ChatRequest, tools: ToolUse | None) -> Conversation:
    conversation = read_conversation(request.messages)
    suffix = system_block(tools.shown) if tools else ""
    return dataclasses.replace(conversation, system_suffix=suffix)


def _ending(request: ChatRequest) -> Ending:
    if request.continues:
        return Ending.OPEN
    return Ending.COMPLETE if request.add_generation_prompt is False else Ending.ANSWER


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
