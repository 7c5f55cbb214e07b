"""Drives a daemon through langchain-openai.

python langchain_openai_client.py BASE_URL MODEL PICTURE
"""

import base64
import sys
from enum import StrEnum
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Colour(StrEnum):
    BLACK = "black"
    YELLOW = "yellow"


class Note(BaseModel):
    """What is seen."""

    colour: Colour


@tool
def note(colour: Colour) -> str:
    """Remembers a colour."""
    return colour.value


def main() -> None:
    base_url, model, picture = sys.argv[1:]
    url = f"data:image/png;base64,{base64.b64encode(Path(picture).read_bytes()).decode()}"
    asked = [
        HumanMessage(
            [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "What colour is the star?"},
            ]
        )
    ]

    def client(**fields: object) -> ChatOpenAI:
        settings = {"base_url": base_url, "api_key": "none", "model": model, "max_retries": 0}
        return ChatOpenAI(**{**settings, "seed": 1, "temperature": 0, **fields})

    plain = client(max_tokens=8).invoke(asked)
    assert plain.content == "black"

    whole = None
    for chunk in client(max_tokens=8, stream_usage=True).stream(asked):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == plain.content
    assert whole.usage_metadata["total_tokens"] == plain.usage_metadata["total_tokens"]

    (call,) = (
        client(max_tokens=200)
        .bind_tools([note], tool_choice="note", parallel_tool_calls=False, strict=True)
        .invoke(asked)
        .tool_calls
    )
    assert call["name"] == "note"
    assert call["args"]["colour"] in ("black", "yellow")

    streamed = None
    bound = client(max_tokens=200).bind_tools(
        [note], tool_choice="any", parallel_tool_calls=False, strict=True
    )
    for chunk in bound.stream(asked):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed.tool_calls[0]["args"]["colour"] in ("black", "yellow")

    for method in ("json_schema", "function_calling"):
        structured = client(max_tokens=200).with_structured_output(Note, method=method, strict=True)
        assert structured.invoke(asked).colour in Colour

    responses = client(max_tokens=8, use_responses_api=True, seed=None)
    response = responses.invoke("Hello")
    assert response.text
    deltas = "".join(chunk.text for chunk in responses.stream("Hello"))
    assert deltas == response.text, (deltas, response.text)
    print("langchain-openai: ok")


if __name__ == "__main__":
    main()
