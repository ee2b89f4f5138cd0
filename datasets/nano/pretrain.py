"""Pretrain `nano`, the embedded Gemma 4 model, from random weights with transformers' own Gemma 4 classes.

    python datasets/nano/pretrain.py                 # about an hour and a half on two cores; resumes where it stopped
    python datasets/nano/pretrain.py --steps 50 --work /tmp/nano --out /tmp/nano/model

Torch is used here, and only here, because it trains a model this small nine times faster on a CPU than MLX does
(LOG.md). The result is what `google/gemma-4-E2B-it` is: a Hugging Face folder of type gemma4, in bfloat16. Its held-out
perplexities are written to `pretraining.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import corpus
import numpy as np
import tokenizer as tokenizers_of_nano
import torch
from transformers import AutoTokenizer, Gemma4Config, Gemma4ForConditionalGeneration, GemmaTokenizer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NANO = ROOT / "mlx_gemma" / "nano"
VOCABULARY, ROW, BATCH, SEED = 3072, 256, 16, 20261121
CONVERSATIONS, LIBRARY_REPEATS = 240_000, 4
LANGUAGE_STEPS = 2250  # updates in which requests count as much as answers
GLOBAL_HEAD_DIM = 64
S, F = "sliding_attention", "full_attention"


def config(tokenizer: GemmaTokenizer) -> Gemma4Config:
    """E2B's structure at 2.7 M parameters. The last two layers with their own K/V are a sliding and a full one, because
    llama.cpp takes the shared K/V from just those two places."""
    named = {k: tokenizer.convert_tokens_to_ids(t) for k, t in tokenizers_of_nano.NAMED.items()}
    text = {
        "vocab_size": VOCABULARY,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 384,
        "use_double_wide_mlp": True,
        "num_hidden_layers": 7,
        "num_kv_shared_layers": 4,
        "layer_types": [S, S, F, S, S, S, F],
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "global_head_dim": GLOBAL_HEAD_DIM,
        "hidden_size_per_layer_input": 16,
        "sliding_window": 128,
        "max_position_embeddings": 2048,
        "final_logit_softcapping": 30.0,
        "rope_parameters": {
            S: {"rope_type": "default", "rope_theta": 10000.0},
            F: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        },
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return Gemma4Config(
        text_config=text,
        vision_config=None,
        audio_config=None,
        boi_token_id=named["boi_token"],
        eoi_token_id=named["eoi_token"],
        image_token_id=named["image_token"],
        boa_token_id=named["boa_token"],
        eoa_token_id=named["eoa_token"],
        audio_token_id=named["audio_token"],
        video_token_id=named["video_token"],
    )


def initialise(model: torch.nn.Module, seed: int) -> None:
    """Normal(0, 0.02) matrices, unit norms, except q_norm at head_dim ** -0.5: Gemma 4's attention scale is 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("q_norm.weight"):
                p.fill_(p.shape[0] ** -0.5)
            elif p.ndim == 1:
                p.fill_(1.0)
            else:
                p.normal_(0.0, 0.02 if "embed_tokens" in name else p.shape[-1] ** -0.5, generator=generator)


def encode(
    tokenizer: GemmaTokenizer, *, held_out: bool, count: int, seed: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of (conversations, library functions), each starting with <bos>."""
    talks = [
        tokenizer.apply_chat_template(m, tokenize=False) for m in corpus.conversations(count, seed, held_out=held_out)
    ]
    library = ["<bos>" + t + "<eos>" for t in corpus.library_functions(held_out=held_out)]
    return tuple(tokenizer(t, add_special_tokens=False)["input_ids"] for t in (talks, library))  # type: ignore[return-value]


def pack(documents: list[list[int]], length: int, seed: int) -> np.ndarray:
    """[rows, length + 1] uint16: whole documents, first fit over a shuffled stream, the rest of a row padded with 0."""
    order = random.Random(seed).sample(range(len(documents)), len(documents))
    rows: list[list[int]] = []
    open_rows: list[list[int]] = []
    for i in order:
        document = documents[i][: length + 1]
        for row in open_rows:
            if len(row) + len(document) <= length + 1:
                row.extend(document)
                break
        else:
            open_rows.append(list(document))
            if len(open_rows) > 24:
                open_rows.sort(key=len)
                rows.append(open_rows.pop())
    rows += open_rows
    random.Random(seed + 1).shuffle(rows)
    packed = np.zeros((len(rows), length + 1), np.uint16)
    for r, row in enumerate(rows):
        packed[r, : len(row)] = row
    return packed


class Weights:
    """How much each target counts: padding 0, requests `requests`, the model's turns and library text 1.

    Requests hardly depend on anything before them, so their loss drowns what is wanted: that an answer heeds the
    version and the numbers it was given (LOG.md has the figures). They count fully at first, for the language in them.
    """

    def __init__(self, tokenizer: GemmaTokenizer) -> None:
        self.bos, self.start, self.end = (tokenizer.convert_tokens_to_ids(t) for t in ("<bos>", "<|turn>", "<turn|>"))
        self.model = tokenizer("model", add_special_tokens=False)["input_ids"][0]

    def __call__(self, rows: np.ndarray, requests: float) -> np.ndarray:
        """[B, T + 1] ids to [B, T] float32, the weights of rows[:, 1:]."""
        now, following = rows[:, :-1], rows[:, 1:]
        answers = (now == self.start) & (following == self.model)
        library = (now == self.bos) & (following != self.start)
        marker = (now == self.bos) | (now == self.start) | (now == self.end)
        at = np.where(marker, np.arange(now.shape[1]), 0)
        last = np.maximum.accumulate(at, axis=1)
        counts = np.take_along_axis(answers | library, last, axis=1)
        return np.where(following == 0, 0.0, np.where(counts, 1.0, requests)).astype(np.float32)


def loss_of(model: torch.nn.Module, batch: np.ndarray, weights: np.ndarray) -> torch.Tensor:
    """Weighted mean cross entropy of batch[:, 1:], float32 scalar."""
    ids = torch.from_numpy(batch.astype(np.int64))
    logits = model(input_ids=ids[:, :-1]).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = torch.from_numpy(weights).flatten()
    return (losses * weight).sum() / weight.sum()


def perplexity(model: torch.nn.Module, rows: np.ndarray, weights: Weights) -> float:
    """exp of the mean loss over the answers (or library text) in whole batches of `rows`."""
    total, count = 0.0, 0.0
    with torch.no_grad():
        for i in range(0, len(rows) - BATCH + 1, BATCH):
            weight = weights(rows[i : i + BATCH], 0.0)
            total += loss_of(model, rows[i : i + BATCH], weight).item() * float(weight.sum())
            count += float(weight.sum())
    return math.exp(total / count)


def rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over 100 steps, constant, then linear to nothing over the last 40 %."""
    return peak * min((step + 1) / 100, 1.0, max((steps - step) / (0.4 * steps), 0.0))


def optimisers(model: torch.nn.Module) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the layers, AdamW for embeddings, norms and scalars; each with its peak rate."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed_tokens" in n]
    return [
        (torch.optim.Muon(matrices, lr=0.0, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"), 3e-3),
        (torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True), 3e-3),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=4500, help="updates of 16 x 256 tokens")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "nano", help="corpus and training state")
    parser.add_argument("--out", type=Path, default=NANO, help="where the finished checkpoint goes")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    args.work.mkdir(parents=True, exist_ok=True)

    if not (args.work / "tokenizer.json").exists():
        texts = [m["content"] for talk in corpus.conversations(20_000, SEED) for m in talk]
        trained = tokenizers_of_nano.train([*texts, *corpus.library_functions()[:1500]], VOCABULARY)
        tokenizers_of_nano.save(trained, args.work, (NANO / "chat_template.jinja").read_text())
    tokenizer = AutoTokenizer.from_pretrained(args.work)
    if not (args.work / "rows.npy").exists():
        talks, library = encode(tokenizer, held_out=False, count=CONVERSATIONS, seed=SEED + 1)
        np.save(args.work / "rows.npy", pack(talks + library * LIBRARY_REPEATS, ROW, SEED + 2))
    rows = np.load(args.work / "rows.npy")
    talks, library = encode(tokenizer, held_out=True, count=600, seed=SEED + 3)
    weights = Weights(tokenizer)
    held_out = {"answers": pack(talks, ROW, 0), "standard library": pack(library, ROW, 0)}
    print(f"{len(rows):,} rows of {ROW} tokens, {(rows > 0).mean():.1%} full", flush=True)

    model = Gemma4ForConditionalGeneration(config(tokenizer))
    initialise(model, SEED)
    model.train()
    compiled = torch.compile(model)
    optims = optimisers(model)
    state, step = args.work / "state.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        for (o, _), s in zip(optims, saved["optimisers"], strict=True):
            o.load_state_dict(s)
        step = saved["step"]
    started, losses = time.monotonic(), []
    while step < args.steps:
        epoch, at = divmod(step * BATCH, len(rows) - BATCH + 1)
        order = np.random.default_rng(SEED + epoch).permutation(len(rows))
        batch = rows[order[at : at + BATCH]]
        loss = loss_of(compiled, batch, weights(batch, 1.0 if step < LANGUAGE_STEPS else 0.05))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o, peak in optims:
            for group in o.param_groups:
                group["lr"] = rate(step, args.steps, peak)
            o.step()
            o.zero_grad()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            speed = len(losses) * BATCH * ROW / (time.monotonic() - started)
            print(f"step {step}/{args.steps} loss {np.mean(losses[-50:]):.3f} {speed:,.0f} tokens/s", flush=True)
        if step % 250 == 0 or step == args.steps:
            saved = {"model": model.state_dict(), "optimisers": [o.state_dict() for o, _ in optims], "step": step}
            torch.save(saved, state.with_suffix(".part"))
            state.with_suffix(".part").replace(state)
            print({k: round(perplexity(compiled, v, weights), 3) for k, v in held_out.items()}, flush=True)

    model = model.to(torch.bfloat16)
    finish(model, tokenizer, args.out)
    model = model.float()
    figures = {k: round(perplexity(model, v, weights), 3) for k, v in held_out.items()}
    record = {"held_out_perplexity": figures, "steps": step, "tokens": step * BATCH * ROW, "seed": SEED}
    folder = HERE if args.out == NANO else args.out
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")
    print(record)


def finish(model: Gemma4ForConditionalGeneration, tokenizer: GemmaTokenizer, out: Path) -> None:
    """Save what Google's folder holds: weights, tokenizer, template, generation_config, and a config that says
    everything.

    transformers 5.23 leaves global_head_dim out of the file (it writes per_layer_config) and mlx-lm reads vocab_size at
    the top level, so both are written here; E2B's own config.json has the first, and its vocabulary is mlx-lm's
    default.
    """
    stop = [tokenizer.convert_tokens_to_ids(t) for t in ("<eos>", "<turn|>", "<|tool_response>")]
    model.generation_config.update(
        bos_token_id=2, pad_token_id=0, eos_token_id=stop, do_sample=True, temperature=1.0, top_k=64, top_p=0.95
    )
    model.save_pretrained(out)
    tokenizers_of_nano.save(tokenizer, out, (NANO / "chat_template.jinja").read_text())
    saved = json.loads((out / "config.json").read_text())
    saved["vocab_size"] = VOCABULARY
    saved["eos_token_id"] = stop[:2]
    saved["eoa_token_index"] = saved["eoa_token_id"]
    saved["text_config"]["global_head_dim"] = GLOBAL_HEAD_DIM
    (out / "config.json").write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main()
