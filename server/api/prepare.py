"""From a checked request to what the engine takes: token ids, pixels, sampling parameters.

Everything that takes long happens in threads, pictures and videos apart (`media`). What cannot fit
the context is refused before a picture or a video is touched.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from server.api.answer_form import Form, read_chat_form
from server.api.context import ContextCheck, bound_output, check_chars
from server.api.conversation import Conversation, read_conversation
from server.api.engine_request import EngineRequests
from server.api.incoming import value_count
from server.api.media import MediaLoader
from server.api.schemas import ChatRequest, Message
from server.api.text_prompts import INLINE_CHARS_MAX, TextPrompts, check_countable
from server.api.tool_use import ToolUse, read_tool_use
from server.errors import invalid
from server.frontend.grammar_check import GrammarChecker
from server.frontend.prompt import Prompt, PromptBuilder
from server.frontend.template import Ending, ImageLayout
from server.frontend.tokenizer import Tokenizer
from server.frontend.tools import system_block
from server.limits import Limits
from server.messages import Grammar, Submit
from server.model.spec import ModelSpec
from server.settings import Settings

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
    """Prepares requests for one checkpoint. Close it to end its threads and its process.

    Args:
        decoded: told how many seconds each picture took, from threads.
    """

    def __init__(
        self,
        settings: Settings,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        checker: GrammarChecker,
        decoded: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._limits: Limits = settings
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(tokenizer, spec.tokens_per_image, spec.system_message)
        self._media = MediaLoader(settings, spec.vision.image_size, decoded)
        self._engine_requests = EngineRequests(settings, spec, tokenizer)
        token_chars_max = max(
            len(tokenizer.token_name(token_id)) for token_id in range(tokenizer.vocab_size)
        )
        self._context = ContextCheck(spec.tokens_per_image, token_chars_max)
        self._text_thread = ThreadPoolExecutor(1, "tokenizer")
        self.texts = TextPrompts(
            tokenizer, self._engine_requests, self._text_thread, token_chars_max
        )
        self._checker = checker
        self._grammar_threads = ThreadPoolExecutor(GRAMMAR_THREADS, "grammar")

    def close(self) -> None:
        self._media.close()
        self._checker.close()
        for threads in (self._text_thread, self._grammar_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, request: ChatRequest, max_model_len: int) -> Prepared:
        """
        Args:
            max_model_len: prompt and answer together, in tokens.

        Raises:
            ApiError: 400 for whatever the caller must change.
        """
        limits = await self.texts.token_limits(request)
        tools = read_tool_use(request)
        conversation = self._conversation(request, tools)
        self._context.check_size(conversation, max_model_len)
        check_chars(conversation.text_chars, self._limits.max_text_chars, "messages")
        grammar = await self._grammar(request, tools)
        prompt = await self._tokenise(conversation, _layout(request), _ending(request))
        room = self._context.room(request, conversation, len(prompt.token_ids), max_model_len)
        asked = request.max_completion_tokens or request.max_tokens
        name = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        max_tokens = bound_output(self._limits, asked, room, request.n or 1, name)
        loaded = await self._media.load(conversation.media)
        digests = [digest for digest, _ in loaded]
        submits = self._engine_requests.build(
            request, limits, prompt, digests, max_tokens, grammar=grammar
        )
        return Prepared(prompt, submits, [pixels for _, pixels in loaded], tools)

    async def prompt(self, request: ChatRequest) -> Prompt:
        """The prompt alone, to be counted: it may be longer than the context.

        Raises:
            ApiError: 400, also for one that is so long that nobody can need its count.
        """
        conversation = self._conversation(request, read_tool_use(request))
        pictures = self._context.picture_tokens(conversation)
        check_countable(conversation.text_chars + pictures, "messages")
        return await self._tokenise(conversation, _layout(request), _ending(request))

    async def fits(self, request: ChatRequest, tokens_max: int) -> bool:
        """Whether the prompt has so many tokens at most."""
        conversation = self._conversation(request, read_tool_use(request))
        if self._context.tokens_at_least(conversation) > tokens_max:
            return False
        prompt = await self._tokenise(conversation, _layout(request), _ending(request))
        return len(prompt.token_ids) <= tokens_max

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

    def _conversation(self, request: ChatRequest, tools: ToolUse | None) -> Conversation:
        _check_arguments(request.messages, self._limits)
        conversation = read_conversation(request.messages, request.sampling_of_videos)
        suffix = system_block(tools.shown) if tools else ""
        return dataclasses.replace(conversation, system_suffix=suffix)

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


def _check_arguments(messages: Sequence[Message], limits: Limits) -> None:
    """Arguments of calls are JSON in a string: what bounds texts and bodies bounds them before they
    are decoded."""
    texts = [call.arguments for message in messages for call in message.calls]
    check_chars(sum(map(len, texts)), limits.max_text_chars, "messages")
    if sum(value_count(text.encode()) for text in texts) > limits.max_json_values:
        raise invalid(
            "Invalid 'messages': the arguments of calls have more than "
            f"{limits.max_json_values} commas and brackets, the limit of this server.",
            param="messages",
            code="invalid_json",
        )


def _ending(request: ChatRequest) -> Ending:
    if request.continues:
        return Ending.OPEN
    return Ending.COMPLETE if request.add_generation_prompt is False else Ending.ANSWER


def _layout(request: ChatRequest) -> ImageLayout:
    options = request.mm_processor_kwargs
    return (options.image_layout if options else None) or "separate"
