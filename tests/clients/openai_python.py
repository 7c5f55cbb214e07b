"""Drives a daemon through the official Python client, whichever major is installed where this runs.

python openai_python.py BASE_URL MODEL PICTURE
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any, Literal

import openai
from pydantic import BaseModel

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "note",
        "description": "Remembers a colour.",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["black", "yellow"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["count"],
    "additionalProperties": False,
}


class Note(BaseModel):
    """What is seen."""

    colour: Literal["black", "yellow"]


def main() -> None:
    base_url, model, picture = sys.argv[1:]
    client: Any = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    url = f"data:image/png;base64,{base64.b64encode(Path(picture).read_bytes()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What colour is the star?"},
    ]
    asked = {"model": model, "messages": [{"role": "user", "content": content}], "seed": 1}

    plain = client.chat.completions.create(**asked, max_tokens=8, temperature=0)
    text = plain.choices[0].message.content
    assert plain.choices[0].message.role == "assistant"
    assert plain.choices[0].finish_reason == "stop"
    assert text == "black", text

    chunks = list(
        client.chat.completions.create(
            **asked,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == text, (streamed, text)
    assert chunks[-1].usage.total_tokens == plain.usage.total_tokens

    formatted = client.chat.completions.create(
        **asked,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    )
    assert 0 <= json.loads(formatted.choices[0].message.content)["count"] <= 9

    called = client.chat.completions.create(
        **asked, max_tokens=200, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = called.choices[0].message.tool_calls
    assert call.function.name == "note"
    assert json.loads(call.function.arguments)["colour"] in ("black", "yellow")
    assert called.choices[0].finish_reason == "tool_calls"

    helper = getattr(client.chat.completions, "stream", None)
    if helper is None:
        helper = client.beta.chat.completions.stream
    with helper(
        **asked, max_tokens=200, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
    ) as stream:
        (built,) = stream.get_final_completion().choices[0].message.tool_calls
    assert built.function.name == "note"
    assert json.loads(built.function.arguments)["colour"] in ("black", "yellow")

    parse = getattr(client.chat.completions, "parse", None)
    if parse is None:
        parse = client.beta.chat.completions.parse
    parsed = parse(**asked, n=2, max_tokens=200, response_format=Note)
    assert all(choice.message.parsed.colour in ("black", "yellow") for choice in parsed.choices)

    letters = {"structured_outputs": {"regex": "[ab]{8}"}}
    with helper(**asked, n=2, max_tokens=50, logprobs=True, extra_body=letters) as stream:
        kinds = {event.type for event in stream}
        built = stream.get_final_completion()
    assert {"content.delta", "content.done", "logprobs.content.delta"} <= kinds, kinds
    assert [choice.message.role for choice in built.choices] == ["assistant"] * 2
    for choice in built.choices:
        scored = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
        assert scored.decode() == choice.message.content
        assert set(choice.message.content) <= set("ab")
        assert choice.finish_reason == "stop"

    use_responses(client, model, url)

    try:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("an unknown model was served")
    print(f"openai {openai.__version__}: ok")


def use_responses(client: Any, model: str, url: str) -> None:
    """Whole and streamed, with a picture, parsed, with a tool, and continued."""
    content = [
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_text", "text": "What colour is the star?"},
    ]
    asked = {"model": model, "input": [{"role": "user", "content": content}], "temperature": 0}
    response = client.responses.create(**asked, max_output_tokens=8)
    assert response.status == "completed"
    assert response.output_text == "black"
    events = list(client.responses.create(**asked, max_output_tokens=8, stream=True))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == response.output_text
    assert events[-1].response.usage.total_tokens == response.usage.total_tokens

    parsed = client.responses.parse(**asked, max_output_tokens=200, text_format=Note)
    assert parsed.output_parsed.colour in ("black", "yellow")

    tool = {"type": "function", "strict": True, **TOOL["function"]}
    forced = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    with client.responses.stream(**asked, **forced, max_output_tokens=200) as stream:
        final = stream.get_final_response()
    (call,) = final.output
    assert json.loads(call.arguments)["colour"] in ("black", "yellow")

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "noted"}
    further = client.responses.create(
        model=model, input=[result], previous_response_id=final.id, max_output_tokens=8
    )
    assert further.usage.input_tokens > response.usage.input_tokens


if __name__ == "__main__":
    main()
