"""What a GGUF file says of a Gemma 4 decoder: structure, origin, tokenizer, and its tensors' names.

Keys and values are those of llama.cpp's own converter. `write_structure` and `read_structure` are each other's inverse.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from mlx_lm.models.gemma4_text import ModelArgs

from mlx_gemma.errors import ModelError
from mlx_gemma.interop.export import Job
from mlx_gemma.interop.gguf_file import AGAIN, ARCHITECTURE, File

ROPE_FREQS = "rope_freqs.weight"  # of full attention: 1 where a pair of dimensions is rotated, STILL where it is not
STILL = 1e30
RENDERED = {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'}
"""Control tokens that llama.cpp prints all the same, for its parser of answers."""
INSTEAD = "export to another form (--to hf)"


@cache
def _names(layers: int) -> gguf.TensorNameMap:
    return gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA4, layers)


def tensor_name(place: str, layers: int) -> str | None:
    """A decoder tensor's name in GGUF: `blk.3.ffn_up.weight` of `layers.3.mlp.up_proj.weight`; None of what has none.

    Trap: layer_scalar's gets a ".weight" too, or llama.cpp does not look at it.
    """
    found = _names(layers).get_name(f"model.{place.removesuffix('.weight')}")
    return f"{found}.weight" if found else None


def write_structure(writer: gguf.GGUFWriter, args: Any) -> None:
    """What gemma4.* says of the decoder."""
    sliding = [kind == "sliding_attention" for kind in args.layer_types]
    own, width = args.num_hidden_layers - args.num_kv_shared_layers, args.intermediate_size
    widths = [width if i < own else 2 * width for i in range(args.num_hidden_layers)]
    writer.add_block_count(args.num_hidden_layers)
    writer.add_context_length(args.max_position_embeddings)
    writer.add_embedding_length(args.hidden_size)
    writer.add_embedding_length_per_layer_input(args.hidden_size_per_layer_input)
    writer.add_feed_forward_length(widths if args.use_double_wide_mlp else width)
    writer.add_head_count(args.num_attention_heads)
    writer.add_head_count_kv(args.num_key_value_heads)
    writer.add_key_length(args.global_head_dim)
    writer.add_value_length(args.global_head_dim)
    writer.add_key_length_swa(args.head_dim)
    writer.add_value_length_swa(args.head_dim)
    writer.add_layer_norm_rms_eps(args.rms_norm_eps)
    writer.add_sliding_window(args.sliding_window)
    writer.add_sliding_window_pattern(sliding)
    writer.add_shared_kv_layers(args.num_kv_shared_layers)
    writer.add_final_logit_softcapping(args.final_logit_softcapping)
    writer.add_rope_freq_base(args.rope_parameters["full_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(args.rope_parameters["sliding_attention"]["rope_theta"])
    writer.add_rope_dimension_count(args.global_head_dim)
    writer.add_rope_dimension_count_swa(args.head_dim)


def read_structure(file: File) -> Any:
    """mlx-lm's ModelArgs of the decoder that a file's metadata describes.

    Raises:
        ModelError: something is missing, or nothing that this class computes.
    """
    layers, shared = int(file.value("block_count")), int(file.value("attention.shared_kv_layers"))
    widths, sliding = file.value("feed_forward_length"), file.value("attention.sliding_window_pattern")
    widths = widths if isinstance(widths, list) else [widths] * layers
    double = len(set(widths)) > 1
    lost = [n for n in ("token_embd.weight", "per_layer_token_embd.weight", ROPE_FREQS) if n not in file.tensors]
    if lost:
        raise ModelError(f"no tensor {lost[0]}", where=file.path, fix=AGAIN)
    wanted = [widths[0] * (1 + (double and i >= layers - shared)) for i in range(layers)]
    if widths != wanted or not isinstance(sliding, list) or len(sliding) != layers:
        what = "its layers' widths or kinds are not those of E2B or E4B"
        raise ModelError(what, where=file.path, fix="give a GGUF of one of them")
    turned = np.asarray(file.array(ROPE_FREQS, mx.float32)) < STILL / 10
    rope = {
        "full_attention": {
            "rope_type": "proportional",
            "rope_theta": file.value("rope.freq_base"),
            "partial_rotary_factor": float(turned.mean()),
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": file.value("rope.freq_base_swa")},
    }
    return ModelArgs(
        hidden_size=file.value("embedding_length"),
        num_hidden_layers=layers,
        intermediate_size=widths[0],
        use_double_wide_mlp=double,
        num_attention_heads=file.value("attention.head_count"),
        num_key_value_heads=file.value("attention.head_count_kv"),
        head_dim=file.value("attention.key_length_swa"),
        global_head_dim=file.value("attention.key_length"),
        rms_norm_eps=file.value("attention.layer_norm_rms_epsilon"),
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        vocab_size_per_layer_input=file.tensors["per_layer_token_embd.weight"].shape[0],
        num_kv_shared_layers=shared,
        hidden_size_per_layer_input=file.value("embedding_length_per_layer_input"),
        rope_parameters=rope,
        sliding_window=file.value("attention.sliding_window"),
        max_position_embeddings=file.value("context_length"),
        final_logit_softcapping=file.value("final_logit_softcapping"),
        layer_types=["sliding_attention" if s else "full_attention" for s in sliding],
    )


def describe(job: Job, size: int) -> gguf.Metadata:
    """Name, base, licence (as the base's README tells it) and the base's sampling defaults; `size` in parameters."""
    source, name = job.source, job.run.resolve().name
    base = {"name": Path(source.name).name}
    if source.revision:  # of the hub
        owner = source.name.split("/")[0]
        repo = f"https://huggingface.co/{source.name}"
        base |= {"organization": owner, "version": source.revision, "repo_url": repo}
    card = gguf.Metadata.load_model_card(source.folder)
    sampling = gguf.Metadata.load_generation_config(source.folder)
    return gguf.Metadata(
        name=f"{base['name']} {name}",
        basename=base["name"],
        finetune=name,
        size_label=gguf.size_label(size, size, 0, 0),
        license=card.get("license"),
        base_models=[base],
        sampling_temp=sampling.get("temperature"),
        sampling_top_k=sampling.get("top_k"),
        sampling_top_p=sampling.get("top_p"),
    )


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> int:
    """Tokens, types, merges, special ids and chat template, as llama.cpp's converter has them; returns their number.

    Cost: 20 s and 1 GB at 262,144 tokens, with what GGUFWriter then does to pack them.

    Trap: the converter takes a token for a control token only if tokenizer_config.json names it. Without Google's full
    one, <|turn> becomes plain text, and llama.cpp cuts it into four pieces. Here tokenizer.json's own mark also counts.

    Raises:
        ModelError: it is no tokenizer of Gemma's kind.
    """
    try:
        vocabulary = gguf.LlamaHfVocab(folder)
        marked = {t.content for t in vocabulary.tokenizer.added_tokens_decoder.values() if t.special}
        special = gguf.SpecialVocab(folder, load_merges=True)
    except (OSError, ValueError, LookupError, TypeError) as e:
        raise ModelError(f"no tokenizer of Gemma's kind: {e!r}", where=folder, fix=INSTEAD) from e
    texts, scores, kinds = [], [], []
    for raw, score, kind in vocabulary.all_tokens():
        text = raw.decode("utf8")
        control = gguf.TokenType.CONTROL if text in marked else kind
        kinds.append(gguf.TokenType.USER_DEFINED if text in RENDERED else control)
        texts.append(raw)
        scores.append(score)
    writer.add_tokenizer_model(ARCHITECTURE)
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    special.chat_template = str(vocabulary.tokenizer.chat_template)  # the one that the run was trained with
    special.add_special_token["bos"] = True  # llama.cpp overrules a false one
    special.add_to_gguf(writer, quiet=True)
    writer.add_add_space_prefix(False)
    return len(texts)
