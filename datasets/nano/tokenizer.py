"""Train nano's tokenizer: a small sibling of Gemma 4's, of the same class and with the same named tokens.

BPE with byte fallback over text whose spaces are written as U+2581. Merges never join a name, a number, a run of
punctuation or a line break with another, so that `print(` and `print "` part at a token boundary, as they do in
Gemma's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import GemmaTokenizer

NAMED = {
    "std_token": "<|tool>",
    "etd_token": "<tool|>",
    "stc_token": "<|tool_call>",
    "etc_token": "<tool_call|>",
    "str_token": "<|tool_response>",
    "etr_token": "<tool_response|>",
    "escape_token": '<|"|>',
    "think_token": "<|think|>",
    "soc_token": "<|channel>",
    "eoc_token": "<channel|>",
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
    "boi_token": "<|image>",
    "boa_token": "<|audio>",
    "image_token": "<|image|>",
    "audio_token": "<|audio|>",
    "eoi_token": "<image|>",
    "eoa_token": "<audio|>",
    "video_token": "<|video|>",
}
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *NAMED.values()]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
PIECES = "▁?[A-Za-z_]+|[0-9]|\n+|▁?[^A-Za-z_0-9\n▁]+|▁+"


def train(texts: Iterable[str], size: int) -> GemmaTokenizer:
    """A tokenizer of `size` entries in all, special tokens and bytes included."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    alphabet = [chr(c) for c in range(33, 127)] + ["▁", "\n", "\t"]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL) - len(BYTES),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        min_frequency=8,
        max_token_length=16,
        show_progress=False,
    )
    bpe.train_from_iterator((t.replace(" ", "▁") for t in texts), trainer)
    learned = json.loads(bpe.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocab = {token: i for i, token in enumerate([*SPECIAL, *BYTES, *pieces])}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=[tuple(m) for m in learned["merges"]], padding_side="left", **NAMED)
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in NAMED.values()], special_tokens=True)
    return tokenizer


def save(tokenizer: GemmaTokenizer, folder: Path, chat_template: str) -> None:
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
