"""What can be asked about a demo picture, in both languages: several phrasings, one answer.

Words in braces are filled in by `questions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.demo.words import Language


@dataclass(frozen=True, slots=True)
class Topic:
    """The ways to ask one thing, and its answer."""

    questions: Mapping[Language, tuple[str, ...]]
    answers: Mapping[Language, str]


def _topic(en: str, zh: str, answer: str, answer_zh: str | None = None) -> Topic:
    """Phrasings separated by bars."""
    questions: dict[Language, tuple[str, ...]] = {
        "en": tuple(phrase.strip() for phrase in en.split("|")),
        "zh": tuple(phrase.strip() for phrase in zh.split("|")),
    }
    return Topic(questions, {"en": answer, "zh": answer_zh or answer})


THING = "{a} {colour} {shape}"
THING_ZH = "{colour}的{shape}"

TOPICS: Mapping[str, Topic] = {
    "shape": _topic(
        "What shape is this?|What shape do you see?|Name the shape.|Which shape is it?",
        "这是什么形状？|你看到什么形状？|它是什么形状？",
        "{shape}",
    ),
    "shape_of_colour": _topic(
        "What shape is {colour}?|Which shape is {colour}?|What is the {colour} shape?"
        "|What shape is the {colour} one?",
        "{colour}的是什么形状？|什么形状是{colour}的？|{colour}的形状是什么？",
        "{shape}",
    ),
    "shape_at": _topic(
        "What shape is at the {place}?|Which shape is at the {place}?|What is at the {place}?"
        "|What shape do you see at the {place}?",
        "{place}是什么形状？|{place}的形状是什么？|{place}是哪个形状？",
        "{shape}",
    ),
    "exists": _topic(
        "Is there {a} {thing}?|Do you see {a} {thing}?|Is there {a} {thing} in the picture?",
        "有{thing}吗？|图中有{thing}吗？|你看到{thing}吗？",
        "{yes}",
    ),
    "colour": _topic(
        "What colour is it?|What colour is the shape?|What color is this?|Which colour is it?",
        "这是什么颜色？|它是什么颜色？|形状是什么颜色？",
        "{colour}",
    ),
    "colour_of_shape": _topic(
        "What colour is the {shape}?|What color is the {shape}?|Which colour is the {shape}?"
        "|What is the colour of the {shape}?",
        "{shape}是什么颜色？|{shape}的颜色是什么？|{shape}是哪个颜色？",
        "{colour}",
    ),
    "colour_at": _topic(
        "What colour is the shape at the {place}?|What color is at the {place}?"
        "|Which colour is the shape at the {place}?",
        "{place}的形状是什么颜色？|{place}是什么颜色？|{place}的颜色是什么？",
        "{colour}",
    ),
    "colour_of_text": _topic(
        "What colour is the {kind}?|What color is the {kind}?|Which colour is the {kind}?",
        "{kind}是什么颜色？|{kind}的颜色是什么？|{kind}是哪个颜色？",
        "{colour}",
    ),
    "count": _topic(
        "How many shapes are there?|How many shapes do you see?|Count the shapes."
        "|How many shapes are in the picture?",
        "有几个形状？|图中有几个形状？|你看到几个形状？",
        "{count}",
    ),
    "count_shape": _topic(
        "How many {shapes} are there?|How many {shapes} do you see?|Count the {shapes}."
        "|How many {shapes} are in the picture?",
        "有几个{shapes}？|图中有几个{shapes}？|你看到几个{shapes}？",
        "{count}",
    ),
    "count_colour": _topic(
        "How many {colour} shapes are there?|How many shapes are {colour}?"
        "|How many {colour} shapes do you see?",
        "有几个{colour}的形状？|图中有几个{colour}的？|你看到几个{colour}的形状？",
        "{count}",
    ),
    "side_across": _topic(
        "Is the {one} left or right of the {other}?"
        "|Is the {one} on the left or right of the {other}?",
        "{one}在{other}的左边还是右边？|{one}是在{other}的左边还是右边？",
        "{side}",
    ),
    "side_along": _topic(
        "Is the {one} above or below the {other}?|Is the {one} below or above the {other}?",
        "{one}在{other}的上面还是下面？|{one}是在{other}的上面还是下面？",
        "{side}",
    ),
    "place": _topic(
        "Where is the {one}?|Where do you see the {one}?|At which place is the {one}?",
        "{one}在哪里？|{one}在图中哪里？|你看到{one}在哪里？",
        "{place}",
    ),
    "text": _topic(
        "What {kind} is this?|Read the {kind}.|What is the {kind}?|Which {kind} do you see?"
        "|What {kind} do you see?",
        "这是什么{kind}？|图中的{kind}是什么？|{kind}是什么？|你看到什么{kind}？",
        "{text}",
    ),
    "only_text": _topic(
        "What does it say?|Read the text.|What is written here?|What text do you see?",
        "上面写的是什么？|图中写的是什么？|这是什么字？",
        "{text}",
    ),
    "thing": _topic(
        "What is in the picture?|What is this?|What do you see?|Describe the picture."
        "|Describe the image.|What is in the image?",
        "图中有什么？|这是什么？|你看到什么？|请描述这张图片。|图片里有什么？",
        "{things}",
    ),
    "thing_at": _topic(
        "Describe the shape at the {place}.|What thing is at the {place}?",
        "请描述{place}的形状。|{place}有什么？",
        THING,
        THING_ZH,
    ),
    "picture_with": _topic(
        "Which picture has {a} {thing}?|Which image has {a} {thing}?"
        "|In which picture is {a} {thing}?",
        "哪张图有{thing}？|哪张图片里有{thing}？|{thing}在哪张图里？",
        "Image-{number}",
    ),
    "picture_with_text": _topic(
        "Which picture shows the {kind} {text}?|Which image shows the {kind} {text}?"
        "|Which picture has the {kind} {text}?",
        "哪张图有{kind}{text}？|{kind}{text}在哪张图里？|哪张图片里有{kind}{text}？",
        "Image-{number}",
    ),
    "picture_with_more": _topic(
        "Which picture has more shapes?|Which image has more shapes?|Where are more shapes?",
        "哪张图的形状更多？|哪张图有更多形状？|哪张图片里形状更多？",
        "Image-{number}",
    ),
    "json_thing": _topic(
        "Describe the shape in JSON.|What is this? Answer in JSON.|Give shape and color as JSON.",
        "请用JSON描述形状。|这是什么？请用JSON回答。|请用JSON回答形状和颜色。",
        '{{"shape": "{shape}", "color": "{colour}"}}',
    ),
    "json_thing_at": _topic(
        "Describe the shape at the {place} in JSON.|What is at the {place}? Answer in JSON.",
        "请用JSON描述{place}的形状。|{place}是什么？请用JSON回答。",
        '{{"shape": "{shape}", "color": "{colour}"}}',
    ),
    "json_count": _topic(
        "How many shapes are there? Answer in JSON.|Count the shapes and answer in JSON.",
        "有几个形状？请用JSON回答。|图中有几个形状？请用JSON回答。",
        '{{"count": {count}}}',
    ),
    "json_text": _topic(
        "Read the {kind} and answer in JSON.|What is the {kind}? Answer in JSON.",
        "{kind}是什么？请用JSON回答。|这是什么{kind}？请用JSON回答。",
        '{{"text": "{text}"}}',
    ),
    "and_colour": _topic(
        "And its colour?|What colour is it?|And what color is it?", "它的颜色呢？|它是什么颜色？",
        "{colour}",
    ),
    "and_place": _topic("And where is it?|Where is it?", "它在哪里？|那它在哪里？", "{place}"),
    "and_shape": _topic(
        "And its shape?|What shape is it?", "它的形状呢？|它是什么形状？", "{shape}"
    ),
    "and_count": _topic(
        "And {shapes}?|And how many {shapes}?", "那{shapes}呢？|那有几个{shapes}？", "{count}"
    ),
    "other": _topic(
        "Who are you?|Hello!|Write a poem about the sea.|What is the capital of France?"
        "|Tell me a joke.|How is the weather today?|Translate this sentence.|What is two plus two?"
        "|How old are you?"
        "|Can you help me?|Write a short story.|What can you do?|Who made you?|Explain gravity."
        "|Give me a recipe for soup.|What day is it?|Good morning!|Do you like music?|Thank you."
        "|What is your name?|Write code that sorts a list.|Who won the match?",
        "你是谁？|你好！|请写一首诗。|法国的首都是哪里？|讲个笑话。|今天天气怎么样？|你能做什么？"
        "|你叫什么名字？|一加一等于几？|请帮帮我。|谢谢！|早上好！|你喜欢音乐吗？|写一个故事。",
        "I am a small demo model: I tell shapes, colours, numbers and words in pictures.",
        "我是一个小演示模型，能看图中的形状、颜色、数字和单词。",
    ),
}  # fmt: skip
