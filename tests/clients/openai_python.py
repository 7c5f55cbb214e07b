"""Drives a daemon through the official Python client, whichever major is installed where this runs.

python openai_python.py BASE_URL MODEL PICTURE
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import openai

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "note",
        "description": "Remembers a colour.",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}},
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


def main() -> None:
    base_url, model, picture = sys.argv[1:]
    client: Any = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    url = f"data:image/png;base64,{base64.b64encode(Path(picture).read_bytes()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Please describe the image shortly."},
    ]
    asked = {"model": model, "messages": [{"role": "user", "content": content}], "seed": 1}

    plain = client.chat.completions.create(**asked, max_tokens=8, temperature=0)
    text = plain.choices[0].message.content
    assert plain.choices[0].message.role == "assistant"
    assert plain.usage.completion_tokens == 8

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
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")
    assert called.choices[0].finish_reason == "tool_calls"

    helper = getattr(client.chat.completions, "stream", None)
    if helper is None:
        helper = client.beta.chat.completions.stream
    with helper(
        **asked, max_tokens=200, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
    ) as stream:
        (built,) = stream.get_final_completion().choices[0].message.tool_calls
    assert built.function.name == "note"
    assert json.loads(built.function.arguments)["colour"] in ("red", "blue")

    if hasattr(client, "responses"):
        response = client.responses.create(
            model=model,
            input=[{"role": "user", "content": "Hello"}],
            max_output_tokens=8,
            temperature=0,
        )
        assert response.output_text
        events = list(
            client.responses.create(
                model=model, input="Hello", max_output_tokens=8, temperature=0, stream=True
            )
        )
        deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
        assert "".join(deltas) == response.output_text

    try:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("an unknown model was served")
    print(f"openai {openai.__version__}: ok")


if __name__ == "__main__":
    main()
