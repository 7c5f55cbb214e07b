"""The mid checkpoint as OpenVINO GenAI wants it: graphs of the language model, of its embeddings,
of the tower and of the tokenizer.

    python -m benchmarks.peers.openvino_files MID FOLDER

Its exporter asks for the authors' classes; these here have their names and shapes, no more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import openvino
import torch
from openvino_tokenizers import convert_tokenizer
from optimum.exporters.openvino.convert import export_from_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer, PretrainedConfig
from transformers.modeling_utils import PreTrainedModel

from benchmarks.peers.vllm_files import CHAT_TEMPLATE, ONE_TILE


class Config(PretrainedConfig):
    model_type = "internvl_chat"

    def __init__(
        self,
        vision_config: dict[str, Any] | None = None,
        llm_config: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.vision_config = PretrainedConfig(**(vision_config or {}))
        self.llm_config = LlamaConfig(**(llm_config or {}))


class Norm(nn.RMSNorm):
    def __init__(self, config: Any) -> None:
        super().__init__(config.hidden_size, config.layer_norm_eps)


class Attention(nn.Module):
    use_flash_attn = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv, self.proj = nn.Linear(size, 3 * size, bias=False), nn.Linear(size, size)
        self.q_norm, self.k_norm = Norm(config), Norm(config)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        query, key, value = (
            torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_norm(query), self.k_norm(key), value)
        )
        seen = scaled_dot_product_attention(query, key, value)
        return self.proj(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.attn, self.norm1, self.norm2 = Attention(config), Norm(config), Norm(config)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(size, inner), "fc2": nn.Linear(inner, size)})
        self.ls1, self.ls2 = nn.Parameter(torch.ones(size)), nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1 * self.attn(self.norm1(x))
        inner = nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2 * self.mlp["fc2"](inner)


class Embeddings(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        positions = (config.image_size // patch) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, size))
        self.patch_embedding = nn.Conv2d(3, size, patch, patch)
        self.position_embedding = nn.Parameter(torch.zeros(1, positions, size))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding


class Vision(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layers": layers})

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embeddings(pixels)
        for layer in self.encoder["layers"]:
            x = layer(x)
        return x


class InternVLChatModel(PreTrainedModel):
    config_class = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        wide, size = 4 * config.vision_config.hidden_size, config.llm_config.hidden_size
        self.vision_model = Vision(config.vision_config)
        self.language_model = LlamaForCausalLM(config.llm_config)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(wide), nn.Linear(wide, size), nn.GELU(), nn.Linear(size, size)
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.extract_feature(pixel_values)

    def extract_feature(self, pixel_values: Tensor) -> Tensor:
        """[P, 3, S, S] to [P, tokens, hidden], by the first version of the pixel shuffle."""
        x = self.vision_model(pixel_values)[:, 1:]
        side = int(x.shape[1] ** 0.5)
        x = x.reshape(-1, side, side // 2, 2 * x.shape[2]).transpose(1, 2)
        x = x.reshape(-1, side // 2, side // 2, 2 * x.shape[3])
        return self.mlp1(x.flatten(1, 2))


def main() -> None:
    mid, folder = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((mid / "config.json").read_text("utf-8"))
    # Weights in float32 take twice the space and give the same rates: it computes in bfloat16.
    model = InternVLChatModel(Config(**config, **ONE_TILE)).to(torch.bfloat16).eval()
    weights = {}
    for file in mid.glob("*.safetensors"):
        weights |= load_file(file)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown and all("rotary" in name for name in missing), (missing, unknown)
    tokenizer = LlamaTokenizer.from_pretrained(mid)
    tokenizer.chat_template = CHAT_TEMPLATE
    export_from_model(
        model,
        folder,
        task="image-text-to-text",
        preprocessors=[tokenizer],
        patch_16bit_model=True,
    )
    for name, graph in zip(
        ("tokenizer", "detokenizer"),
        convert_tokenizer(tokenizer, with_detokenizer=True, skip_special_tokens=False),
        strict=True,
    ):
        openvino.save_model(graph, folder / f"openvino_{name}.xml")
    preprocessor = json.loads((mid / "preprocessor_config.json").read_text("utf-8"))
    side = config["force_image_size"]
    preprocessor |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    generation = mid / "generation_config.json"
    (folder / generation.name).write_bytes(generation.read_bytes())


if __name__ == "__main__":
    main()
