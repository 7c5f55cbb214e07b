"""How much the demo model sees: the share of right answers over HTTP, by category.

    python -m benchmarks.eval_demo [--scenes N] [--stream] [--shuffle-pictures] [--json FILE]
        [--base-url URL | --model FOLDER] [-- FLAGS OF serve]

Held-out scenes are asked with the openai client, 16 at a time, as any client would ask. The model
is small and knows only such scenes, so this number must not move when anything else is changed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI
from tqdm import tqdm

from server.demo.exam import SCORED, Question, draw_exam, is_right
from server.demo.questions import CATEGORIES

ADDRESS = re.compile(r"on (http://\S+)")
MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Result:
    question: Question
    answer: str
    right: bool


async def ask_all(
    base_url: str, questions: Sequence[Question], *, stream: bool, concurrency: int
) -> list[Result]:
    """Asks all questions of the daemon at `base_url`, `concurrency` at a time."""
    gate = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none", timeout=600) as client:
        model = (await client.models.list()).data[0].id
        bar = tqdm(total=len(questions), desc="questions", disable=None)

        async def ask(question: Question) -> Result:
            async with gate:
                answer = await _ask(client, model, question, stream)
            bar.update()
            return Result(question, answer, is_right(question, answer))

        results = await asyncio.gather(*(ask(question) for question in questions))
        bar.close()
    return results


async def _ask(client: AsyncOpenAI, model: str, question: Question, stream: bool) -> str:
    """The answer to the last turn; the turns before are answered by the model too."""
    messages: list[Any] = []
    answer = ""
    for index, turn in enumerate(question.turns):
        pictures = question.pictures if index == 0 else ()
        content = [_picture(file) for file in pictures] + [{"type": "text", "text": turn.question}]
        messages.append({"role": "user", "content": content})
        answer = await _complete(client, model, messages, stream)
        messages.append({"role": "assistant", "content": answer})
    return answer


async def _complete(client: AsyncOpenAI, model: str, messages: list[Any], stream: bool) -> str:
    options: dict[str, Any] = {"temperature": 0, "max_tokens": MAX_TOKENS}
    if not stream:
        reply = await client.chat.completions.create(model=model, messages=messages, **options)
        return reply.choices[0].message.content or ""
    chunks = await client.chat.completions.create(
        model=model, messages=messages, stream=True, **options
    )
    texts = [chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]
    return "".join(texts)


def _picture(file: bytes) -> dict[str, Any]:
    kind = "jpeg" if file.startswith(b"\xff\xd8") else "png"
    url = f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def shuffled(questions: Sequence[Question]) -> list[Question]:
    """The questions with the pictures of others of their category: only guessing is left."""
    by_category: defaultdict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_category[question.category].append(question)
    return [
        replace(question, pictures=group[index - 1].pictures)
        for group in by_category.values()
        for index, question in enumerate(group)
    ]


def shares(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Share of right answers by category, and over all that are scored, in each language."""
    table: dict[str, dict[str, float]] = {}
    for row in (*CATEGORIES, "all scored"):
        chosen = [r for r in results if row in (r.question.category, _total(r.question))]
        columns = {
            "en": [r.right for r in chosen if r.question.language == "en"],
            "zh": [r.right for r in chosen if r.question.language == "zh"],
            "both": [r.right for r in chosen],
        }
        table[row] = {name: sum(right) / len(right) for name, right in columns.items() if right} | {
            "questions": len(chosen)
        }
    return table


def _total(question: Question) -> str:
    return "all scored" if question.category in SCORED else ""


def show(table: dict[str, dict[str, float]]) -> str:
    lines = [f"{'category':14}{'en':>8}{'zh':>8}{'both':>8}{'questions':>12}"]
    for name, row in table.items():
        cells = (f"{row[key]:8.1%}" if key in row else " " * 8 for key in ("en", "zh", "both"))
        lines.append(f"{name:14}{''.join(cells)}{row['questions']:12.0f}")
    return "\n".join(lines)


@contextmanager
def serving(model: Path | None, flags: Sequence[str]) -> Iterator[str]:
    """Starts the daemon and gives its URL."""
    command = [sys.executable, "-m", "server", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--model", str(model)] if model else []
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            log = ""
            while not ADDRESS.search(log):
                line = process.stderr.readline()
                if not line:
                    raise SystemExit(f"the daemon did not start:\n{log}")
                log += line
            found = ADDRESS.search(log)
            assert found
            # The rest of the log goes where ours does.
            tail = subprocess.Popen([sys.executable, "-c", _COPY], stdin=process.stderr)
            _wait_until_ready(found[1])
            yield found[1]
        finally:
            process.terminate()
            process.wait()
        tail.wait()


_COPY = "import sys, shutil; shutil.copyfileobj(sys.stdin, sys.stderr)"


def _wait_until_ready(url: str) -> None:
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Share of right answers of the demo model.")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size-px", type=int, default=224, help="picture size of the model")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--shuffle-pictures", action="store_true")
    parser.add_argument("--base-url", help="a running daemon; else one is started")
    parser.add_argument("--model", type=Path, help="its checkpoint; default: what it serves itself")
    parser.add_argument("--json", type=Path, help="where to store table and answers")
    parser.add_argument("flags", nargs="*", help="of serve, behind --")
    arguments = parser.parse_args()
    questions = draw_exam(arguments.scenes, size_px=arguments.size_px, seed=arguments.seed)
    if arguments.shuffle_pictures:
        questions = shuffled(questions)

    def measure(url: str) -> list[Result]:
        asked = ask_all(url, questions, stream=arguments.stream, concurrency=arguments.concurrency)
        return asyncio.run(asked)

    started = time.monotonic()
    if arguments.base_url:
        results = measure(arguments.base_url)
    else:
        with serving(arguments.model, arguments.flags) as url:
            results = measure(url)
    table = shares(results)
    print(show(table))
    print(f"{len(results)} questions in {time.monotonic() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(_record(table, results), indent=1), encoding="utf-8")


def _record(table: dict[str, dict[str, float]], results: Sequence[Result]) -> dict[str, Any]:
    answers = [
        {
            "category": result.question.category,
            "question": [turn.question for turn in result.question.turns],
            "right answer": result.question.turns[-1].answer,
            "answer": result.answer,
            "right": result.right,
        }
        for result in results
    ]
    return {"shares": table, "answers": answers}


if __name__ == "__main__":
    main()
