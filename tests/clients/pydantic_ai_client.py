"""Drives a daemon through pydantic-ai.

python pydantic_ai_client.py BASE_URL MODEL PICTURE
"""

import asyncio
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Note(BaseModel):
    """What is seen."""

    colour: Literal["black", "yellow"]


async def main() -> None:
    base_url, name, picture = sys.argv[1:]
    provider = OpenAIProvider(base_url=base_url, api_key="none")
    model = OpenAIChatModel(name, provider=provider)
    asked = [
        BinaryContent(Path(picture).read_bytes(), media_type="image/png"),
        "What colour is the star?",
    ]
    short = {"max_tokens": 8, "temperature": 0.0}
    long = {"max_tokens": 200, "temperature": 0.0, "seed": 1}

    agent = Agent(model, model_settings=short)
    plain = await agent.run(asked)
    assert plain.output == "black", plain.output

    async with agent.run_stream(asked) as stream:
        text = await stream.get_output()
    assert text == plain.output
    assert stream.usage.total_tokens == plain.usage.total_tokens

    for output in (NativeOutput(Note), ToolOutput(Note)):
        answer = await Agent(model, output_type=output, model_settings=long).run(asked)
        assert answer.output.colour in ("black", "yellow")

    streamed = Agent(model, output_type=ToolOutput(Note), model_settings=long)
    async with streamed.run_stream(asked) as stream:
        assert (await stream.get_output()).colour in ("black", "yellow")

    responses = Agent(OpenAIResponsesModel(name, provider=provider), model_settings=short)
    whole = (await responses.run("Hello")).output
    async with responses.run_stream("Hello") as stream:
        assert await stream.get_output() == whole
    print("pydantic-ai: ok")


if __name__ == "__main__":
    asyncio.run(main())
