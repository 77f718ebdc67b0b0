"""Architectures of transformers, from configurations with small values."""

from typing import Any, Final

import torch
import transformers
from torch import Tensor

from optim_family.networks.families.example import Example, classification_loss

NAMES: Final = (
    *("bert", "gpt2", "llama", "mistral", "qwen2", "roberta", "distilbert", "albert", "electra", "opt"),
    *("gpt_neo", "gpt_neox", "bloom", "t5", "bart", "vit", "convnext", "mamba", "gemma", "phi"),
    *("whisper", "clip", "swin", "deberta-v2"),
)
IMAGES: Final = ("vit", "convnext", "swin")
MASKED: Final = ("bert", "roberta", "distilbert", "albert", "electra", "deberta-v2")
# Small values of the fields of configurations.
_FIELDS: Final[dict[int, str]] = {
    2: "num_hidden_layers num_attention_heads n_layer n_head n_layers n_heads num_layers num_heads "
    "encoder_layers decoder_layers encoder_attention_heads decoder_attention_heads num_key_value_heads "
    "eos_token_id window_size",
    8: "d_kv patch_size head_dim num_mel_bins",
    16: "hidden_size n_embd dim d_model embedding_size word_embed_proj_dim embed_dim",
    24: "intermediate_size hidden_dim d_ff encoder_ffn_dim decoder_ffn_dim ffn_dim",
    32: "image_size max_source_positions max_target_positions",
    50: "vocab_size",
    64: "max_position_embeddings",
    0: "pad_token_id",
    1: "bos_token_id decoder_start_token_id",
}
SMALL: Final = {field: value for value, fields in _FIELDS.items() for field in fields.split()}
# Values of single architectures.
OWN: Final[dict[str, dict[str, Any]]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "vit": {"image_size": 64},
    "convnext": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "patch_size": 2},
}


def names() -> list[str]:
    """The models of the sweep."""
    return list(NAMES)


def all_names() -> list[str]:
    """All models that `build` knows."""
    return names()


def build(name: str) -> Example:
    """The model with its own loss on two sequences of 8 tokens, or with cross-entropy on two images."""
    if name == "clip":
        return _clip()
    config, ids = _config(name), torch.randint(3, 50, (2, 8))
    if name in IMAGES:
        model = transformers.AutoModelForImageClassification.from_config(config)
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        return Example(model.train(), classification_loss, (images, torch.arange(2)))
    batch = {"input_ids": ids, "labels": ids}
    if name == "whisper":
        kind = "SpeechSeq2Seq"
        batch = {"input_features": torch.randn(2, 8, 64, dtype=torch.float64), "labels": ids}
    else:
        kind = "Seq2SeqLM" if name in ("t5", "bart") else "MaskedLM" if name in MASKED else "CausalLM"
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(config)
    return Example(model.train(), _own_loss, (batch, None))


def _config(name: str) -> Any:
    config_class = transformers.CONFIG_MAPPING[name]
    fields = config_class().to_dict().keys()
    values: dict[str, Any] = {key: value for key, value in SMALL.items() if key in fields}
    values |= OWN.get(name, {})
    if name == "swin":
        del values["hidden_size"]  # follows from embed_dim
    if name in IMAGES:
        values["num_labels"] = 4
    config = config_class(**values)
    if name == "t5":
        config.decoder_start_token_id = 0
    return config


def _clip() -> Example:
    towers = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    shared = {key: SMALL[key] for key in towers}
    config = transformers.CLIPConfig(
        text_config={**shared, "vocab_size": 50, "eos_token_id": 2},
        vision_config={**shared, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    batch = {
        "input_ids": torch.randint(3, 50, (2, 8)),
        "pixel_values": torch.randn(2, 3, 32, 32, dtype=torch.float64),
        "return_loss": True,
    }
    return Example(transformers.CLIPModel(config), _own_loss, (batch, None))


def _own_loss(outputs: Any, y: None) -> Tensor:
    """The outputs, of which `measure` takes the loss."""
    return outputs  # type: ignore[no-any-return]
