"""Where a model comes from: `nano`, a folder, or a hub id, resolved to a folder and to what identifies it.

Only safetensors and JSON are ever read; nothing in a checkpoint is executed but its chat template, in jinja2's sandbox.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_gemma.digest import digest_files, digest_json
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import headers
from mlx_gemma.gemma4.names import place

NANO = Path(__file__).parents[1] / "nano"
MODEL_TYPES = ("gemma4", "gemma4_text")
WEIGHTS = "model*.safetensors"  # what mlx-lm's loader reads
STRUCTURE = (  # what shapes do not tell
    "final_logit_softcapping",
    "layer_types",
    "num_attention_heads",
    "num_kv_shared_layers",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
)
WANTED = ["*.json", "*.jinja", "*.safetensors"]  # what `digest` is over
DOWNLOADED = [*WANTED, "README.md"]  # for the base's licence, in what is exported


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a Gemma 4 model. `name` is what the user asked for, `revision` the hub commit, if any."""

    name: str
    folder: Path
    revision: str | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json as it stands, checked to be of a Gemma 4 model.

        Raises:
            ModelError: no config.json, not JSON, another model type, or a text_config that is none.
        """
        path = self.folder / "config.json"
        if not path.exists():
            raise ModelError(
                "no config.json, so this is no model folder", where=self.folder, fix="give a Gemma 4 checkpoint"
            )
        config = read_json(path)
        if config.get("model_type") not in MODEL_TYPES:
            raise ModelError(
                f"model_type {config.get('model_type')!r} is not Gemma 4",
                where=path,
                fix=f"give a model of type {' or '.join(MODEL_TYPES)}",
            )
        if not isinstance(config.get("text_config", {}), dict):
            raise ModelError("its text_config is no object", where=path, fix="download the checkpoint again")
        return config

    @property
    def text_config(self) -> dict[str, Any]:
        """The text decoder's configuration, wherever the class keeps it."""
        return dict(self.config.get("text_config", self.config))

    @cached_property
    def digest(self) -> str:
        """sha256 over config, weights and tokenizer; reads every byte (about 10 s for E2B in bf16 on an SSD)."""
        return digest_files(sorted(p for pattern in WANTED for p in self.folder.glob(pattern)))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the text decoder's structure and its tensors' places, dtypes and shapes.

        Tells sizes and precisions apart in milliseconds, but not two trainings of one model, as `digest` does. The
        multimodal class and the text-only one have the same: an adapter of one fits the other.

        Raises:
            ModelError: a weight file that is none.
        """
        held = {place(n): t for file in sorted(self.folder.glob(WEIGHTS)) for n, t in headers.tensors(file).items()}
        config = self.text_config
        structure = {key: config.get(key) for key in STRUCTURE}
        return digest_json([structure, {name: [t.dtype, t.shape] for name, t in held.items() if name}])


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf8"))
        if not isinstance(value, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as e:
        raise ModelError(f"unreadable {path.name}: {e}", where=path, fix="download the checkpoint again") from e
    return value


def find(name: str, revision: str | None = None) -> Checkpoint:
    """Resolve a model's name to a folder on this machine, downloading from the hub if it is a hub id.

    Raises:
        ModelError: nothing of this name, or the hub refuses or cannot be reached.
    """
    if name == "nano":
        return Checkpoint(name, NANO)
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):  # os.path, as Path.is_dir raises where a name is too long for a file
        return Checkpoint(name, Path(folder))
    if os.path.exists(folder):
        raise ModelError("a file, not a model folder", where=name, fix="give the folder that holds config.json")
    return Checkpoint(name, *_download(name, revision))


def _download(name: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        if name.count("/") != 1:
            raise HFValidationError(name)  # the hub also knows names without an owner, of old; no Gemma 4 has one
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=DOWNLOADED))
    except HFValidationError as e:
        raise ModelError(
            "no such folder, and not a hub id",
            where=name[:80],  # which may be a prompt, where the model was forgotten
            fix="give nano, a folder, or an id such as google/gemma-4-E2B-it",
        ) from e
    except GatedRepoError as e:
        raise ModelError(
            "the hub wants you to accept this model's licence",
            where=name,
            fix="do so on its page, then run: hf auth login",
        ) from e
    except RepositoryNotFoundError as e:
        raise ModelError(
            "no such folder, and the hub has no such model",
            where=name,
            fix="check the spelling, or log in: hf auth login",
        ) from e
    except RevisionNotFoundError as e:
        raise ModelError(f"the hub has no revision {revision} of it", where=name, fix="see its page's commits") from e
    except Exception as e:  # the hub's own errors are OSErrors, those of its client (a proxy that refuses) are not
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            where = constants.HF_HUB_CACHE
            raise ModelError("the disk is full", where=where, fix="free space, or set HF_HOME to another disk") from e
        raise ModelError(
            "no such folder, and not in the local cache, while the hub cannot be reached",
            where=name,
            fix="check the spelling, or go online once",
        ) from e
    return folder, folder.name
