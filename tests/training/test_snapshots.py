"""Snapshots: at which updates, what is in them, and that a run that begins anew clears them."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from children import recipe
from mlx.utils import tree_flatten

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.training import snapshots
from mlx_gemma.training.loop import train
from mlx_gemma.training.prepare import prepare
from mlx_gemma.training.trainer import Trainer

SHORT = ("train.steps=4", "data.valid=null", "data.regression=null", "adapter.dropout=0")


def test_a_quarter_into_each_of_equal_spans(tmp_path: Path) -> None:
    def kept(*overrides: str, steps: int = 100) -> list[int]:
        return sorted(snapshots.steps_kept(recipe(tmp_path, "run", *overrides).recipe, steps))

    assert kept() == [6, 31, 56, 81]
    assert kept("blame.snapshots=1") == [25]
    assert kept("blame.snapshots=0") == []
    assert kept("adapter.kind=full") == []
    assert kept(steps=1) == [1]
    assert kept(steps=3) == [1, 2]


@pytest.mark.parametrize("more", [(), ("train.lora_plus=4",), ("adapter.kind=dora", "train.optimizer=adam")], ids=str)
def test_they_hold_the_adapter_and_the_corrected_second_moments(more: tuple[str, ...], tmp_path: Path) -> None:
    """As the optimiser has them, to bfloat16's 2 ** -8; v over 1 - 0.999 ** updates."""
    resolved = recipe(tmp_path, "run", *SHORT, *more)
    trainer = Trainer(prepare(resolved.recipe), resolved, mx.distributed.init())
    for progress in trainer.go_on():
        if progress.step == 3:
            break
    updater, name = trainer.updater, resolved.recipe.train.optimizer
    snapshots.save(tmp_path, 3, updater.parameters, updater.optimizer, name)
    (path,) = snapshots.found(tmp_path)
    kept = snapshots.load(path)
    assert kept.step == 3
    parts = getattr(updater.optimizer, "optimizers", [updater.optimizer])
    moments = {k[:-2]: v / (1 - 0.999**3) for part in parts for k, v in tree_flatten(part.state) if k[-2:] == ".v"}
    parameters = dict(tree_flatten(updater.parameters))
    for found, wanted in ((kept.parameters, parameters), (kept.moments, moments)):
        assert found is not None
        assert set(found) == set(parameters)
        for k, v in wanted.items():
            assert np.allclose(np.array(found[k]), np.array(v), rtol=2**-8, atol=0), k


def test_a_finished_run_keeps_them_and_one_begun_anew_clears_the_old(tmp_path: Path) -> None:
    resolved = recipe(tmp_path, "run", *SHORT, "train.optimizer=sgd")
    folder = Path(resolved.recipe.output)
    train(resolved)
    assert [p.name for p in sorted((folder / run.SNAPSHOTS).iterdir())] == [f"{i:06d}.safetensors" for i in range(1, 4)]
    kept = snapshots.load(snapshots.found(folder)[-1])
    assert kept.moments is None
    assert set(kept.parameters) == set(mx.load(str(folder / lora.WEIGHTS)))
    (folder / run.MANIFEST).unlink()
    run.start(folder, "")
    assert not (folder / run.SNAPSHOTS).exists()


def test_a_damaged_one_is_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "000001.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="unreadable snapshot") as e:
        snapshots.load(path)
    assert "\n" not in str(e.value)
