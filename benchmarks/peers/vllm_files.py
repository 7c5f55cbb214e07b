"""The mid checkpoint as vLLM wants it: transformers must know its config, so a class comes along,
and so does the conversation template as a file.

    python -m benchmarks.peers.vllm_files MID FOLDER

Weights and tokenizer are links.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CONFIG_CLASS = """
from transformers import LlamaConfig, PretrainedConfig


class InternVisionConfig(PretrainedConfig):
    model_type = "intern_vit_6b"
    initializer_factor = 0.1


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, vision_config=None, llm_config=None, **others):
        super().__init__(**others)
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = LlamaConfig(**(llm_config or {}))
"""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

ONE_TILE = {"min_dynamic_patch": 1, "max_dynamic_patch": 1}
"""Of a config: peers ask for these even where pictures are one tile."""


def main() -> None:
    mid, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for file in mid.iterdir():
        link = folder / file.name
        if file.name != "config.json" and not link.exists():
            link.symlink_to(file)
    config = json.loads((mid / "config.json").read_text("utf-8"))
    config |= ONE_TILE
    config["auto_map"] = {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "configuration_internvl_chat.py").write_text(CONFIG_CLASS)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


if __name__ == "__main__":
    main()
