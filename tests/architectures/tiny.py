"""Every architecture of the installed transformers that can be made small, with some thousand parameters each."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig

LARGEST = 8_000_000
"""Parameters of a model that still counts as small."""
_SIZES: tuple[tuple[str, int], ...] = (
    # The first pattern that a field's whole name matches gives its size.
    (r"vocab_size|.*_vocab_size", 96),
    (r".*(max_position|max_source|max_target|n_positions|max_seq|context_length).*", 64),
    (r"head_dim|.*_head_dim|d_kv|attention_head_size", 8),
    (r".*(num_key_value_heads|kv_heads|n_head_kv).*", 2),
    (r".*(num_attention_heads|attention_heads|num_heads|n_heads?|encoder_heads|decoder_heads)", 2),
    (r".*(num_experts_per_tok|top_?k|moe_topk)", 1),
    (r".*(num_experts|num_local_experts|n_routed_experts|moe_num_experts)", 2),
    (
        r".*(num_hidden_layers|num_layers|n_layers?|encoder_layers|decoder_layers|num_(?!feat_|conv_).*_layers|depth)",
        1,
    ),
    (r".*(intermediate_size|ffn_dim|d_ff|n_inner|ffn_hidden_size|hidden_dim|mlp_dim)", 32),
    (
        r".*(hidden_size|d_model|n_embd|embed_dim|embedding_size|d_embed|dim|model_dim|projection_dim|width)",
        16,
    ),
    (r"image_size|.*_image_size", 32),
    (r"patch_size|.*_patch_size", 16),
    (r"q_lora_rank|kv_lora_rank|.*_lora_rank", 8),
    (r"n_group|topk_group", 1),
    (r"first_k_dense_replace", 0),
)
_BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types")
"""Fields with an entry for each layer."""
_HEADS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES",
    "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_CTC_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
)


def architectures() -> dict[str, str]:
    """Return the class of one model with a head, where there is any, for each model type of this transformers."""
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    for mapping in _HEADS:
        for kind, name in getattr(modeling_auto, mapping, {}).items():
            found.setdefault(kind, name if isinstance(name, str) else name[0])
    return dict(sorted(found.items()))


def small_model(kind: str, name: str, seed: int) -> Any:
    """Return a small model with weights from ``seed``. Raises whatever its architecture raises where it can't be."""
    config = small_config(kind)
    try:
        with torch.device("meta"):
            empty = getattr(transformers, name)(copy.deepcopy(config))
    except RuntimeError:
        pass  # made with the values of tensors (Swin in transformers 4): how large it is shows when it is made
    else:
        count = sum(parameter.numel() for parameter in empty.parameters())
        if count > LARGEST:
            raise ValueError(f"{count / 1e6:.0f} million parameters at its smallest")
    torch.manual_seed(seed)
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases and norms are made equal whatever the seed is, and what isn't loaded would not be seen in them.
            parameter.add_(torch.randn(parameter.shape).to(parameter.dtype) * 0.1)
    return model


def small_config(kind: str) -> Any:
    """Return a model type's configuration with every size that has a known name made small."""
    config = transformers.AutoConfig.for_model(kind)
    for part in _parts(config):
        for name, value in list(vars(part).items()):
            if isinstance(value, bool):
                continue
            if isinstance(value, int) and (size := _size_of(name, value)) is not None:
                setattr(part, name, size)
            elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
                setattr(part, name, min(value, 5))
            elif name == "vocab_size" and value is None:
                setattr(part, name, 96)
        for name, value in list(vars(part).items()):
            if name in _BY_LAYER and isinstance(value, list) and hasattr(part, "num_hidden_layers"):
                setattr(part, name, value[: part.num_hidden_layers])  # saving checks their number
        heads = getattr(part, "num_heads", None)
        if isinstance(heads, (list, tuple)) and hasattr(part, "embed_dim"):
            part.embed_dim = 8 * heads[0]  # Swin's layers grow from here
    return config


def _size_of(name: str, value: int) -> int | None:
    return next((min(size, value) for pattern, size in _SIZES if re.fullmatch(pattern, name)), None)


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PretrainedConfig):
            yield from _parts(value)
