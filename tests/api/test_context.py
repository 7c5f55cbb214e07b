from __future__ import annotations

from typing import Any

import pytest

from server.api.context import ContextCheck
from server.api.conversation import Conversation, read_conversation
from server.api.schemas import ChatRequest
from server.errors import ApiError
from tests.api.harness import chat

CHECK = ContextCheck(tokens_per_image=256, token_chars_max=10)
VIDEO = {"type": "video_url", "video_url": "data:v"}
PICTURE = {"type": "image_url", "image_url": "data:a"}
TEXT = {"type": "text", "text": "x" * 30}


def read(*parts: dict[str, Any], **fields: Any) -> tuple[ChatRequest, Conversation]:
    request = ChatRequest.model_validate(chat(list(parts), **fields))
    return request, read_conversation(request.messages, request.sampling_of_videos)


def test_a_video_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    """The model card's own default of 32 frames does not fit its own context."""
    options = {"video": {"num_segments": 32}}
    request, conversation = read(VIDEO, TEXT, media_io_kwargs=options)
    CHECK.check_size(conversation, 4096)
    with pytest.raises(ApiError) as caught:
        CHECK.room(request, conversation, 8420, 4096)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.message == (
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "8420 tokens: 32 pictures x 256 tokens = 8192 and 228 tokens of text. Please take fewer "
        "frames ('media_io_kwargs.video.num_segments') or shorten the text."
    )


def test_pictures_that_do_not_fit_are_refused_with_the_arithmetic() -> None:
    request, conversation = read(*[PICTURE] * 16, TEXT)
    with pytest.raises(ApiError) as caught:
        CHECK.room(request, conversation, 4200, 4096)
    assert caught.value.message == (
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "4200 tokens: 16 pictures x 256 tokens = 4096 and 104 tokens of text. Please send fewer "
        "pictures or shorten the messages."
    )


def test_what_is_far_too_long_is_refused_by_its_size_alone() -> None:
    _, conversation = read(*[PICTURE] * 64, TEXT)
    with pytest.raises(ApiError) as caught:
        CHECK.check_size(conversation, 4096)
    assert "hold 64 pictures x 256 tokens = 16384 and 30 characters of text." in str(caught.value)
    CHECK.check_size(read(*[PICTURE] * 63, TEXT)[1], 4096)

    CHECK.check_size(read(TEXT)[1], 4)
    with pytest.raises(ApiError, match="hold 30 characters of text"):
        CHECK.check_size(read(TEXT)[1], 3)
