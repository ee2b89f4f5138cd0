"""GGUF files, read by gguf's own reader and by ours. What llama.cpp makes of them is tested in tests/llama."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from logits import our_logits
from safetensors.torch import load_file
from tiny_gemma4 import add_dead_kv, edit_config, edit_weights, random_adapter, random_tokens

from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import compare, gguf_file, gguf_lora, stream
from mlx_gemma.interop import gguf as ours
from mlx_gemma.interop.export import export

Models = Callable[[str], Path]
TOKENS = random_tokens(60)
NAMES = {  # as llama.cpp's src/llama-arch.cpp has them
    "embed_tokens.weight": "token_embd.weight",
    "embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    "norm.weight": "output_norm.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "per_layer_input_gate.weight": "inp_gate.weight",
    "per_layer_projection.weight": "proj.weight",
    "post_per_layer_input_norm.weight": "post_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
}


def tensors(path: Path) -> dict[str, Any]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items() if "GGUF." not in name}


def values(tensor: Any) -> np.ndarray:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """A folder's tensors of the text decoder, by what is behind the prefix."""
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    decoder = {k.replace("model.language_model.", "model."): v for k, v in found.items()}
    inside = {k.removeprefix("model."): v for k, v in decoder.items() if "_tower." not in k and "embed_v" not in k}
    return {k: v for k, v in inside.items() if k.split(".")[0] != "embed_audio"}


def name_of(place: str) -> str:
    if not place.startswith("layers."):
        return NAMES[place]
    _, number, inside = place.split(".", 2)
    return f"blk.{number}.{NAMES[inside]}"


def left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith("out")]


@pytest.mark.parametrize("dtype", [None, "F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("name", ["e2b", "e4b", "e2b-text", "e2b-sharded", "nano"])
def test_read_back_is_base_plus_adapter(models: Models, tmp_path: Path, name: str, dtype: str | None) -> None:
    """One file; every tensor is the merged one in its type; our decoder of it computes base + adapter."""
    base, out = models(name), tmp_path / "out.gguf"
    adapted = our_logits(random_adapter(base, tmp_path / "run"), TOKENS)
    done = export(tmp_path / "run", "gguf", out, dtype=dtype)
    export(tmp_path / "run", "hf", tmp_path / "hf", dtype="F32")
    wanted, found = weights(tmp_path / "hf"), tensors(out)
    assert done.bytes == out.stat().st_size
    assert len(done.changes) == (38 if name == "e4b" else 41)
    assert set(found) == {name_of(place) for place in wanted} | {"rope_freqs.weight"}
    own = {torch.float32: "F32", torch.bfloat16: "BF16"}
    for place, value in wanted.items():
        tensor = found[name_of(place)]
        kind = dtype or own[weights(base)[place].dtype]
        if kind == "Q8_0" and value.shape[-1] % 32:
            kind = "F16"
        kind = "F32" if value.ndim == 1 else kind
        assert (tensor.tensor_type.name, tuple(tensor.shape)) == (kind, tuple(reversed(value.shape))), place
        exact = gguf.quants.quantize(value.numpy(), Type[kind])
        assert (tensor.data.view(np.uint8) == exact.view(np.uint8)).all(), place

    gap = compare.difference(compare.logits(ours.read_model(out), TOKENS), adapted)
    limits = {"F32": 1e-5, "F16": 0.01, "BF16": 0.04, "Q8_0": 0.2}  # of the spread; measured 3e-6, 4e-3, 2e-2, 0.12
    assert gap.mean < limits[dtype or ("BF16" if name in ("nano", "e2b-sharded") else "F32")] * gap.spread
    assert done.gap.mean < done.effect / 5


@pytest.mark.parametrize("kind", ["dora", "full"])
@pytest.mark.parametrize("name", ["e2b", "e4b"])
def test_other_kinds_are_merged(models: Models, tmp_path: Path, name: str, kind: str) -> None:
    adapted = our_logits(random_adapter(models(name), tmp_path / "run", kind=kind), TOKENS)
    done = export(tmp_path / "run", "gguf", tmp_path / "out.gguf")
    found = compare.logits(ours.read_model(done.path), TOKENS)
    assert np.abs(found - adapted).mean() < 1e-5 * adapted.std()


@pytest.mark.parametrize(("name", "expected"), [
    ("e2b", {
        "block_count": 7, "context_length": 1024, "embedding_length": 64, "embedding_length_per_layer_input": 8,
        "feed_forward_length": [96, 96, 96, 192, 192, 192, 192], "attention.head_count": 4,
        "attention.head_count_kv": 1, "attention.key_length": 32, "attention.value_length": 32,
        "attention.key_length_swa": 16, "attention.value_length_swa": 16, "attention.sliding_window": 16,
        "attention.sliding_window_pattern": [True, True, False, True, True, True, False],
        "attention.shared_kv_layers": 4, "attention.layer_norm_rms_epsilon": float(np.float32(1e-6)),
        "final_logit_softcapping": 30.0, "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4,
        "rope.dimension_count": 32, "rope.dimension_count_swa": 16,
    }),
    ("e4b", {
        "feed_forward_length": 96, "attention.head_count_kv": 2, "attention.shared_kv_layers": 2,
        "attention.sliding_window_pattern": [True, False, True, False, True, False],
    }),
])  # fmt: skip
def test_metadata(models: Models, tmp_path: Path, name: str, expected: dict[str, Any]) -> None:
    random_adapter(models(name), tmp_path / "run")
    export(tmp_path / "run", "gguf", tmp_path / "out.gguf")
    found = metadata(tmp_path / "out.gguf")
    decoder = {k.removeprefix("gemma4."): v for k, v in found.items() if k.startswith("gemma4.")}
    assert {k: decoder[k] for k in expected} == expected
    assert name == "e4b" or decoder == expected, "and nothing else"
    general = {k.removeprefix("general."): v for k, v in found.items() if k.startswith("general.")}
    assert general == {
        "architecture": "gemma4", "type": "model", "name": f"{name} run", "basename": name, "finetune": "run",
        "size_label": {"e2b": "667K", "e4b": "564K"}[name], "base_model.count": 1, "base_model.0.name": name,
        "file_type": 0, "quantization_version": 2, "sampling.temp": 1.0, "sampling.top_k": 64,
        "sampling.top_p": float(np.float32(0.95)),
    }  # fmt: skip
    freqs = values(tensors(tmp_path / "out.gguf")["rope_freqs.weight"])
    assert freqs.tolist() == [1.0] * 4 + [float(np.float32(1e30))] * 12


def test_file_type_licence_and_hub_id(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_adapter("nano", tmp_path / "run")
    for dtype, number in ((None, 32), ("F32", 0), ("F16", 1), ("BF16", 32), ("Q8_0", 7)):
        done = export(tmp_path / "run", "gguf", tmp_path / f"{dtype}.gguf", dtype=dtype)
        found = gguf_file.read_file(done.path).metadata
        assert found["general.file_type"] == number
        assert found["general.license"] == "apache-2.0"
    job = ours.Job(tmp_path / "run", ours.Checkpoint("google/gemma-4-E2B-it", models("nano"), "0abc"), None)  # type: ignore[arg-type]
    said = ours.describe(job, 5_104_297_504)
    assert (said.name, said.size_label) == ("gemma-4-E2B-it run", "5.1B")
    repo = "https://huggingface.co/google/gemma-4-E2B-it"
    base = {"name": "gemma-4-E2B-it", "organization": "google", "version": "0abc", "repo_url": repo}
    assert said.base_models == [base]


@pytest.mark.parametrize("named", [True, False])
def test_tokenizer(writable: Callable[[str], Path], tmp_path: Path, named: bool) -> None:
    """Equal to tokenizer.json; <|turn> is a control token even where tokenizer_config.json does not name it."""
    base = writable("e2b")
    if not named:
        (base / "tokenizer_config.json").write_text(json.dumps(
            {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
             "unk_token": "<unk>", "mask_token": "<mask>"}
        ))  # fmt: skip
    random_adapter(base, tmp_path / "run")
    export(tmp_path / "run", "gguf", tmp_path / "out.gguf")
    found = {k: v for k, v in metadata(tmp_path / "out.gguf").items() if k.startswith("tokenizer.")}
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"] | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    texts = sorted(ids, key=lambda text: ids[text])
    assert found.pop("tokenizer.ggml.tokens") == texts
    assert found.pop("tokenizer.ggml.scores") == [-1000.0] * 3072
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    assert found.pop("tokenizer.ggml.merges") == merges
    kinds = dict(zip(texts, found.pop("tokenizer.ggml.token_type"), strict=True))
    special = {t["content"] for t in tokenizer["added_tokens"] if t["special"]}
    shown = {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>"}
    shown |= {'<|"|>'}
    assert {"<|turn>", "<turn|>", "<|think|>", "<bos>", *shown} <= special
    for text, kind in kinds.items():
        byte = len(text) == 6 and text.startswith("<0x")
        assert kind == (4 if text in shown else 3 if text in special else 6 if byte else 1), text
    assert found.pop("tokenizer.chat_template") == (base / "chat_template.jinja").read_text()
    assert found == {
        "tokenizer.ggml.model": "gemma4", "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.mask_token_id": 4,
    }  # fmt: skip


def test_dead_kv_is_left_out(writable: Callable[[str], Path], tmp_path: Path) -> None:
    base = writable("e2b")
    random_adapter(base, tmp_path / "run")
    export(tmp_path / "run", "gguf", tmp_path / "out.gguf")
    add_dead_kv(base)
    export(tmp_path / "run", "gguf", tmp_path / "out-2.gguf")
    assert tensors(tmp_path / "out.gguf").keys() == tensors(tmp_path / "out-2.gguf").keys()


@pytest.mark.parametrize("dtype", ["F32", "BF16", "Q8_0"])
def test_blocks_change_nothing(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    random_adapter(models("e2b-bf16"), tmp_path / "run")
    export(tmp_path / "run", "gguf", tmp_path / "out.gguf", dtype=dtype)
    for module in (stream, gguf_file):
        monkeypatch.setattr(module, "BLOCK", 1000)
    done = export(tmp_path / "run", "gguf", tmp_path / "out-2.gguf", dtype=dtype)
    assert done.path.read_bytes() == (tmp_path / "out.gguf").read_bytes()


def full_attention_alone(base: Path) -> None:
    """The K/V of the shared full layer then come from layer 0, four below the first shared one's predecessor."""
    text = json.loads((base / "config.json").read_text())["text_config"]
    text["layer_types"][1:3] = ["full_attention", "sliding_attention"]
    edit_config(base, text_config=text)


def edit_text(**changes: Any) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        text = json.loads((base / "config.json").read_text())["text_config"]
        edit_config(base, text_config=text | changes)

    return change


ROPE = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 8.0}
UNFIT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "K/V elsewhere": (
        full_attention_alone, "layer 3 takes its K/V from layer 2, and llama.cpp would take them from 1",
    ),
    "experts": (edit_text(enable_moe_block=True), "has experts"),
    "keys are values": (edit_text(attention_k_eq_v=True), "keys that are values"),
    "head of its own": (edit_text(tie_word_embeddings=False), "a head of its own"),
    "other RoPE": (
        edit_text(rope_parameters={"full_attention": ROPE, "sliding_attention": {"rope_type": "default"}}),
        "llama.cpp has no RoPE of type yarn",
    ),
    "nonsense": (edit_text(layer_types="s"), "makes no model"),
    "float64": (lambda b: edit_weights(b, lambda w: w.update({k: w[k].double() for k in w if "up_proj" in k})), "F64"),
}  # fmt: skip


@pytest.mark.parametrize("damage", UNFIT)
def test_what_llama_cpp_cannot_run(writable: Callable[[str], Path], tmp_path: Path, damage: str) -> None:
    """One line, before anything is loaded."""
    change, word = UNFIT[damage]
    base = writable("e2b")
    random_adapter(base, tmp_path / "run", targets=("q_proj",))
    change(base)
    with pytest.raises(ModelError, match=word) as caught:
        export(tmp_path / "run", "gguf", tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    assert not left_behind(tmp_path)


def test_tokenizer_of_another_size(writable: Callable[[str], Path], tmp_path: Path) -> None:
    base = writable("e2b")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    more = {**tokenizer["added_tokens"][0], "id": 3072, "content": "<more>"}
    tokenizer["added_tokens"].append(more)
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    random_adapter(base, tmp_path / "run")
    with pytest.raises(ModelError, match="3073 tokens, the embeddings 3072 rows"):
        export(tmp_path / "run", "gguf", tmp_path / "out.gguf")
    assert not left_behind(tmp_path)


@pytest.mark.parametrize(("to", "dtype"), [("gguf", "Q4_0"), ("gguf-lora", "Q8_0")])
def test_other_dtype(models: Models, tmp_path: Path, to: str, dtype: str) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    with pytest.raises(UserError, match=f"--dtype: {dtype} is not for this form"):
        export(tmp_path / "run", to, tmp_path / "out.gguf", dtype=dtype)


@pytest.mark.parametrize("to", ["gguf", "gguf-lora"])
@pytest.mark.parametrize(("error", "seen", "word"), [
    (OSError(errno.ENOSPC, "No space left on device"), UserError, "the disk is full"),
    (KeyboardInterrupt(), KeyboardInterrupt, ""),
])  # fmt: skip
def test_stopped_half_way(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, error: Any, seen: Any, word: str
) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    real, calls = gguf_file.Stored.tofile, []

    def failing(self: Any, file: Any) -> None:
        calls.append(self.name)
        if len(calls) == 5:
            raise error
        real(self, file)

    monkeypatch.setattr(gguf_file.Stored, "tofile", failing)
    with pytest.raises(seen, match=word or None):
        export(tmp_path / "run", to, tmp_path / "out.gguf")
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0])
def test_wrong_merge_is_refused(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    real = ours.pieces
    monkeypatch.setattr(ours, "pieces", lambda file, a: real(file, replace(a, scale=a.scale * factor)))
    with pytest.raises(ModelError, match=r"is not base \+ adapter"):
        export(tmp_path / "run", "gguf", tmp_path / "out.gguf")
    assert not left_behind(tmp_path)


def rewrite(path: Path, *, drop: str = "", add: str = "", kind: Type | None = None, **changes: Any) -> None:
    """Write a GGUF file again, by gguf's own writer, with other metadata or tensors."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), changes.get("architecture", "gemma4"))
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            value = changes.get(name.split(".")[-1], field.contents())
            if value is not None:
                writer.add_key_value(name, value, field.types[0], field.types[-1])
    for tensor in reader.tensors:
        if tensor.name != drop:
            data = np.array(tensor.data)
            other = kind if kind and tensor.name == "blk.0.ffn_up.weight" else None
            if other:
                block, width = gguf.GGML_QUANT_SIZES[other]
                writer.add_tensor(tensor.name, np.zeros((96, 64 // block * width), np.uint8), raw_dtype=other)
            else:
                writer.add_tensor(tensor.name, data)
    if add:
        writer.add_tensor(add, np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no GGUF": (lambda p: p.write_bytes(b"1234567890" * 10), "no GGUF header"),
    "empty": (lambda p: p.write_bytes(b""), "no readable GGUF file"),
    "gone": (lambda p: p.unlink(), "no readable GGUF file"),
    "cut in its data": (cut, "ends before its last tensor does"),
    "cut in its header": (lambda p: p.write_bytes(p.read_bytes()[:5000]), "no readable GGUF file"),
    "other architecture": (lambda p: rewrite(p, architecture="llama"), "a GGUF of architecture llama"),
    "no structure": (lambda p: rewrite(p, block_count=None), r"no gemma4\.block_count"),
    "missing tensor": (lambda p: rewrite(p, drop="blk.1.ffn_up.weight"), r"1 tensors are missing.*blk\.1\.ffn_up"),
    "no embeddings": (lambda p: rewrite(p, drop="token_embd.weight"), r"no tensor token_embd\.weight"),
    "unknown tensor": (lambda p: rewrite(p, add="blk.0.ffn_gate_inp.weight"), r"1 tensors are unknown.*ffn_gate_inp"),
    "other widths": (lambda p: rewrite(p, embedding_length=32), "where .* is needed"),
    "widths at random": (lambda p: rewrite(p, feed_forward_length=[96, 64, 96, 192, 192, 192, 192]), "not those of"),
    "a type without code": (lambda p: rewrite(p, kind=Type.Q8_1), "gguf does not dequantise Q8_1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_file(models: Models, tmp_path: Path, damage: str) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    path = export(tmp_path / "run", "gguf", tmp_path / "out.gguf").path
    change, word = DAMAGES[damage]
    change(path)
    with pytest.raises(ModelError, match=word) as caught:
        ours.read_model(path)
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_a_file_of_four_bits_is_read(models: Models, tmp_path: Path) -> None:
    """Whatever gguf dequantises, as other programs write it."""
    random_adapter(models("e2b"), tmp_path / "run")
    path = export(tmp_path / "run", "gguf", tmp_path / "out.gguf").path
    rewrite(path, kind=Type.Q4_0)
    assert (np.asarray(ours.read_model(path).layers[0].mlp.up_proj.weight) == 0).all()


@pytest.mark.parametrize("name", ["e2b", "e4b", "e2b-text", "nano"])
@pytest.mark.parametrize("scale", [2.0, 11.3137084, 1 / 3])
def test_adapter_is_the_same_to_the_bit(models: Models, tmp_path: Path, name: str, scale: float) -> None:
    """Factors [rank, in] and [out, rank] as llama.cpp has them; alpha / rank is the scale, rsLoRA's included."""
    targets = tuple(lora.PLACES)
    random_adapter(models(name), tmp_path / "run", targets=targets)
    config = json.loads((tmp_path / "run" / lora.CONFIG).read_text())
    config["lora_parameters"]["scale"] = scale
    (tmp_path / "run" / lora.CONFIG).write_text(json.dumps(config))
    done = export(tmp_path / "run", "gguf-lora", tmp_path / "out.gguf")
    assert done.gap.largest == 0.0
    assert not done.changes
    found, file = metadata(done.path), tensors(done.path)
    assert found["general.type"] == "adapter"
    assert found["adapter.type"] == "lora"
    assert np.float32(found["adapter.lora.alpha"]) / np.float32(4) == np.float32(scale)
    trained: dict[str, mx.array] = dict(mx.load(str(tmp_path / "run" / lora.WEIGHTS)))
    assert len(file) == len(trained)
    for key, value in trained.items():
        place, _, leaf = key.split("layers.", 1)[1].rpartition(".")
        tensor = file[f"{name_of(f'layers.{place}.weight')}.{leaf}"]
        assert tensor.tensor_type == Type.F32
        assert (values(tensor) == np.asarray(value).T).all()
    arrays, read = gguf_lora.read_adapter(done.path)
    assert len(arrays) * 2 == len(trained)
    assert abs(read - scale) < 1e-7 * scale


def test_adapter_in_half(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    done = export(tmp_path / "run", "gguf-lora", tmp_path / "out.gguf", dtype="F16")
    assert {t.tensor_type for t in tensors(done.path).values()} == {Type.F16}
    assert 0 < done.gap.mean < 1e-3 * done.gap.spread


def test_what_a_lora_file_cannot_tell(models: Models, tmp_path: Path) -> None:
    for kind, word in (("dora", "no adapters of DoRA; --to gguf"), ("full", "no adapters of full training; --to gguf")):
        random_adapter(models("e2b"), tmp_path / kind, kind=kind)
        with pytest.raises(ModelError, match=word):
            export(tmp_path / kind, "gguf-lora", tmp_path / "out.gguf")
    random_adapter(models("e2b"), tmp_path / "run")
    config = json.loads((tmp_path / "run" / lora.CONFIG).read_text())
    config["lora_parameters"]["scale"] = 0
    (tmp_path / "run" / lora.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError, match="takes for 1"):
        export(tmp_path / "run", "gguf-lora", tmp_path / "out.gguf")
    assert not left_behind(tmp_path)


BAD_ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "ignored by llama.cpp": ({"add": "per_layer_model_proj.weight.lora_a"}, "loads it and does not apply it"),
    "aborts llama.cpp": ({"add": "token_embd.weight.lora_a"}, "failed assertion"),
    "half a pair": ({"drop": "blk.1.ffn_up.weight.lora_b"}, r"blk\.1\.ffn_up\.weight are no pair"),
    "a norm": ({"add": "blk.1.attn_norm.weight"}, "no pair"),
    "other architecture": ({"architecture": "gemma3"}, "architecture gemma3"),
    "a model": ({"type": "model"}, "holds a model"),
}


@pytest.mark.parametrize("damage", BAD_ADAPTERS)
def test_bad_adapter_file(models: Models, tmp_path: Path, damage: str) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    path = export(tmp_path / "run", "gguf-lora", tmp_path / "out.gguf").path
    changes, word = BAD_ADAPTERS[damage]
    rewrite(path, **changes)
    with pytest.raises(ModelError, match=word) as caught:
        gguf_lora.read_adapter(path)
    assert caught.value.fix


def test_adapter_of_another_model(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    path = export(tmp_path / "run", "gguf-lora", tmp_path / "out.gguf").path
    with pytest.raises(ModelError, match="is not this model's"):
        gguf_lora.attach(load(str(models("e4b"))).text, *gguf_lora.read_adapter(path), where=path)
