"""The sections and keys of a recipe. A key's consequence is its docstring; keys.py reads it."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlx_gemma.data.policy import FilterPolicy

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]  # bounds keep what is computed from them within floats and int32
Quantization = Literal["none", "affine4", "affine6", "affine8", "mxfp4", "nvfp4", "mxfp8", "nf4"]
Target = Literal[
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "per_layer_input_gate",
    "per_layer_projection",
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelSection(Section):
    name: str
    """nano, a folder, or a hub id such as google/gemma-4-E2B-it"""
    revision: str | None = None
    """hub branch, tag or commit; the commit that was used is recorded in the run"""
    quantize: Quantization = "none"
    """the decoder's projections in fewer bits, frozen: less memory, a little more loss (QLoRA is nf4)"""
    quantize_embeddings: Quantization = "none"
    """the token and per-layer embeddings in fewer bits: 5.5 GB of E2B's 9.3 GB in bfloat16; the head is tied to them"""


class AdapterSection(Section):
    kind: Literal["lora", "dora", "full"] = "lora"
    """lora; dora: also learns each output's length, slower; full: no adapter, trains the layers' own weights"""
    rank: int = Field(32, ge=1, le=65_536)
    """capacity, and memory: parameters grow in proportion"""
    alpha: float = Field(64.0, gt=0, le=1e6)
    """strength: the update is multiplied by alpha / rank"""
    rslora: bool = False
    """multiply by alpha / sqrt(rank) instead, so that high ranks learn as fast as low ones"""
    dropout: Fraction = 0.0
    """share of the adapter's input set to zero in training, against overfitting"""
    targets: tuple[Target, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """projections of the text decoder that get an adapter; k_proj and v_proj exist only below the K/V-shared layers"""
    layers: Count | Literal["all"] = "all"
    """all, or how many counted from the last; E2B's last 20 share their K/V: 20 or fewer train no k_proj, v_proj"""

    @field_validator("targets")
    @classmethod
    def _some_target(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if not targets or len(set(targets)) < len(targets):
            raise ValueError("give at least one target, each once")
        return targets


class DataSection(Section):
    train: str
    """a JSONL or Parquet file, a folder, or hf://owner/name[/file]; relative paths start at the working directory"""
    valid: str | None = None
    """held-out rows for the validation loss; null: no validation"""
    regression: str | None = None
    """rows of an ability that must not get worse: their loss is measured before and after; null: not measured"""
    turns: Literal["all", "last"] = "all"
    """train on all of the model's turns, or only on the last one"""
    limit: Count | None = None
    """use only the first so many rows after filtering, shuffled by the seed; for trials"""


class TrainSection(Section):
    length: int = Field(1024, ge=16, le=10**9)
    """longest row in tokens; longer ones are cut, and dropped where the cut leaves nothing to train"""
    layout: Literal["packed", "padded"] = "padded"
    """packed: examples behind one another in rows of train.length tokens; padded: a row an example, sorted by length"""
    batch: Count = 8
    """rows in one forward pass: speed against memory"""
    accumulate: Count = 1
    """forward passes in one update, weighted by supervised tokens: batch x accumulate rows make one update"""
    lr: float = Field(2e-4, gt=0)
    """peak learning rate; halve it if the loss jumps, double it if it does not move"""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """how the rate falls after warm-up, counted in updates"""
    warmup: Fraction = 0.03
    """share of the updates over which the rate rises from 0"""
    optimizer: Literal["adamw", "adam", "adafactor", "lion", "muon", "sgd"] = "adamw"
    """adamw; adafactor and lion keep less memory, lion wants a tenth of the rate, sgd and muon more"""
    lora_plus: float = Field(1.0, ge=1, le=1e3)
    """LoRA+: lora_b learns at so many times the rate of lora_a; 16 is its authors' choice"""
    weight_decay: float = Field(0.0, ge=0, le=1e3)
    """decay of the trained weights: adamw, lion, muon, sgd, adafactor"""
    clip: float = Field(1.0, gt=0, le=1e9)
    """largest global gradient norm; larger ones are scaled down to it"""
    epochs: float | None = Field(None, gt=0, le=1e6)
    """passes over the rows; give this or steps"""
    steps: Count | None = None
    """updates; give this or epochs"""
    checkpointing: bool = False
    """recompute each layer in the backward pass: 0.6 of the activations' memory for a third more time
    (docs/training.md)"""
    seed: int = Field(0, ge=0, lt=2**64)
    """seed of the initial adapter weights, of the row order, of dropout and of data.limit's choice"""

    @model_validator(mode="after")
    def _one_length(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either train.epochs or train.steps")
        return self


class ValidSection(Section):
    every: Count = 50
    """updates between two measurements of the validation loss, over all validation rows"""
    keep: Literal["best", "last"] = "best"
    """which adapter the run ends with: of the lowest validation loss, or of the last update"""
    patience: Count | None = None
    """stop after so many measurements without a new lowest loss; null: never"""


class CheckpointSection(Section):
    every: Count = 100
    """updates between two checkpoints, from which --resume goes on"""
    keep: Count = 2
    """how many of the newest stay on disk; each holds the adapter and the optimiser's state"""


class BlameSection(Section):
    snapshots: int = Field(4, ge=0, le=100)
    """adapters on the way that the run keeps, for blame to ask which rows caused a token; each takes the adapter's
    size (E2B at rank 32: 193 MB); 0: none, and blame has no causes; adapter.kind full keeps none"""


class Recipe(Section):
    model: ModelSection
    adapter: AdapterSection = AdapterSection()
    data: DataSection
    filter: FilterPolicy = FilterPolicy()
    train: TrainSection
    validation: ValidSection = ValidSection()
    checkpoint: CheckpointSection = CheckpointSection()
    blame: BlameSection = BlameSection()
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = "none"
    """also send the metrics to a tracker, which must be installed; to look: trackio show; wandb's project
    mlx-gemma; tensorboard --logdir runs/NAME (needs the tensorboard package)"""
    output: str
    """the run folder; it must not hold a finished run"""

    @field_validator("output")
    @classmethod
    def _home(cls, output: str) -> str:
        return os.path.expanduser(output)  # not Path.expanduser, which raises where there is no such user

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.adapter.kind == "full" and self.model.quantize != "none":
            raise ValueError("choose one: adapter.kind full trains the weights that model.quantize freezes")
        if self.adapter.kind != "lora" and self.train.lora_plus != 1:
            raise ValueError("train.lora_plus needs adapter.kind lora")
        return self
