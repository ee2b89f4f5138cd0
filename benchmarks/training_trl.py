"""The rival in torch: transformers, PEFT and TRL's SFTTrainer. A process of its own, started by training.py.

It must not load MLX's BLAS, which slows torch tenfold, so it imports nothing of mlx_gemma. It takes one JSON line
(shape, documents, batch, threads), answers with what it has built, and then runs an epoch of the variant that each
further line names. What is timed is Trainer.train() between its first and last step, with the optimiser made before.

Everything is float32 (TRL's default of bf16 has no fast path on a CPU), AdamW, loss on completions, pre-tokenised rows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any, TextIO

VARIANTS: dict[str, dict[str, Any]] = {
    "trl": {},  # as SFTConfig comes, but for float32: checkpointing, rows in random order, padded
    "trl sorted": {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"},
    "trl padding-free": {"gradient_checkpointing": False, "padding_free": True, "max_length": None},
    "trl packed": {"gradient_checkpointing": False, "packing": True},
}
TARGETS = r"model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"


def build(setup: dict[str, Any]) -> Any:
    """A random Gemma4ForCausalLM of the shape, with PEFT's LoRA; its B is not zero, so that A has a gradient."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    torch.manual_seed(0)
    base = Gemma4ForCausalLM(Gemma4TextConfig(**setup["shape"], pad_token_id=0)).requires_grad_(False)
    model = get_peft_model(base, LoraConfig(r=setup["rank"], lora_alpha=2 * setup["rank"], target_modules=TARGETS))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.02)
    return model


def trainer(model: Any, setup: dict[str, Any], options: dict[str, Any], folder: str) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    from datasets import Dataset

    rows = [{"input_ids": t, "completion_mask": [0] * p + [1] * (len(t) - p)} for t, p in setup["documents"]]
    words = WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    batch = setup["batch"]
    if options.get("packing"):  # as many tokens a forward pass as for the other variants
        options = options | {"max_length": setup["packed"]["length"]}
        batch = setup["packed"]["rows"]
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            completion_only_loss=True,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            dataloader_num_workers=0,
            learning_rate=1e-5,
            **({"max_length": setup["max_length"]} | options),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def stopwatch() -> Any:
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        """CPU and wall seconds of the steps of the last epoch."""

        def __init__(self) -> None:
            self.steps = 0
            self.started = self.stopped = (0.0, 0.0)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                self.started = time.process_time(), time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.steps, self.stopped = state.global_step, (time.process_time(), time.perf_counter())

        @property
        def seconds(self) -> tuple[float, float]:
            return self.stopped[0] - self.started[0], self.stopped[1] - self.started[1]

    return Stopwatch()


def peak_bytes(train: Any) -> int:
    """The most that torch's CPU allocator held at once above what it held before; scratch inside MKL is not in it.

    Read from the profiler's allocation events, so this epoch is not one that is timed.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        train()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def serve(orders: TextIO, answers: TextIO) -> None:
    import torch

    setup = json.loads(orders.readline())
    torch.set_num_threads(setup["threads"])
    names = [v for v in setup["variants"] if v in VARIANTS]
    supervised = sum(len(t) - p for t, p in setup["documents"])
    made: dict[str, Any] = {}
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            model = build(setup)
            made[name] = trainer(model, setup, VARIANTS[name], folder), stopwatch()
            made[name][0].add_callback(made[name][1])
            scalars = sum(v.numel() for k, v in model.named_buffers() if k.endswith("layer_scalar"))  # MLX: parameters
            started = time.process_time()
            made[name][0].train()
            report[name] = {
                "targets": supervised,
                "updates": made[name][1].steps,
                "trained": sum(v.numel() for v in model.parameters() if v.requires_grad),
                "frozen": sum(v.numel() for v in model.parameters() if not v.requires_grad) + scalars,
                "warm_s": time.process_time() - started,
            }
            print(json.dumps({"warmed": name}), file=answers, flush=True)
        versions = {name: version(name) for name in ("torch", "transformers", "peft", "trl")}
        print(json.dumps({"ready": report, "machine": versions}), file=answers, flush=True)
        for line in orders:
            order = json.loads(line)
            train, watch = made[order["variant"]]
            if order["what"] == "memory":
                answer = {"peak_bytes": peak_bytes(train.train)}
            else:
                train.train()
                answer = dict(zip(("cpu_s", "wall_s"), watch.seconds, strict=True))
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the libraries' own prints go to stderr
    serve(sys.stdin, answers)
