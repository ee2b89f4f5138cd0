"""From a trained run to a gate: which rows are in it, what is refused, and the commands."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_stand_ins import FakeEncoder, calibrate_as
from planted import resolved, rows

from mlx_gemma.cli import main
from mlx_gemma.data.formats import Row
from mlx_gemma.decode.generate import generate
from mlx_gemma.errors import UserError
from mlx_gemma.gate import build as build_module
from mlx_gemma.gate import route as route_module
from mlx_gemma.gate.build import build, known, trained_rows
from mlx_gemma.gate.index import open_index
from mlx_gemma.gate.retrieve import examples
from mlx_gemma.gate.route import Gate
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.training.loop import train

PROMPT = "Write job_7(x): the largest of x."
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 of 200 rows, of which near ones are left in; 4 updates, large ones."""
    folder = tmp_path_factory.mktemp("gate")
    return train(resolved(folder, "data.limit=150", "train.epochs=null", "train.steps=4", "train.lr=1e-2"))


@pytest.fixture(autouse=True)
def fake_encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    encoder = FakeEncoder()
    monkeypatch.setattr(build_module, "new_encoder", lambda kind, name, gate: encoder)
    monkeypatch.setattr(route_module, "open_encoder", lambda spec, gate: encoder)
    return encoder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "specialist"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def calibrate(gate: Path, accept: float | None) -> None:
    calibrate_as(gate, accept=accept, out=None, digests=dict(open_index(gate).digests))


def test_the_rows_that_were_trained(run: Path) -> None:
    seen: list[tuple[int, int]] = []
    built = build(run, progress=lambda done, total: seen.append((done, total)))
    assert (built.folder, built.rows) == (run / "gate", 150)
    assert seen[-1] == (150, 150)
    index = open_index(built.folder)
    known = [index.row(i) for i in range(len(index))]
    all_rows = {m[0]["content"]: m[1]["content"] for m in (r["messages"] for r in rows())}
    assert all(all_rows[row.prompt] == row.answer for row in known)
    assert [int(row.where.rsplit(":", 1)[1]) for row in known] == sorted(int(r.where.rsplit(":", 1)[1]) for r in known)
    assert len({row.where for row in known}) == 150
    manifest = json.loads((run / "manifest.json").read_text())
    assert index.digests["data"] == manifest["data"]["train"]
    assert index.digests["base"] == manifest["base"]["digest"]
    assert index.made.name == "specialist"
    assert not list(run.glob("*.part*"))


def test_rows_that_the_length_left_nothing_of_are_not_known(tmp_path: Path) -> None:
    folder = train(resolved(tmp_path, "train.length=24", "train.epochs=null", "train.steps=1"))
    count = json.loads((folder / "manifest.json").read_text())["rows"]["train"]
    assert 0 < count < 200
    assert len(trained_rows(folder)) == count


def test_of_a_conversation_the_last_question_is_known() -> None:
    turns = [("system", "s"), ("user", "first"), ("assistant", "a"), ("user", "second"), ("assistant", "b")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert known(Row(messages, "rows.jsonl:3")) == ("second", "b", "rows.jsonl:3")


def test_what_cannot_be_built(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        build(tmp_path)
    with pytest.raises(UserError, match='cannot be named "base"'):
        build(run, name="base")
    build(run)
    with pytest.raises(UserError, match="exists"):
        build(run)


def test_changed_data_is_refused(trained: Path, run: Path) -> None:
    data = trained.parent / "rows.jsonl"
    before = data.read_text()
    try:
        data.write_text(before.replace("max(", "min("))
        with pytest.raises(UserError, match="the data has changed"):
            build(run)
        assert not (run / "gate").exists()
        data.unlink()
        with pytest.raises(UserError, match="the run's data") as caught:
            build(run)
        assert "the folder the run was started in" in str(caught.value)
    finally:
        data.write_text(before)


def test_a_run_trained_again_makes_its_gate_stale(run: Path) -> None:
    gate = build(run).folder
    calibrate(gate, 0.5)
    assert Gate.load(gate).route(PROMPT).route == "specialist"
    adapter = run / "adapters.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="the run's adapter has digest"):
        Gate.load(gate)


def test_the_commands(run: Path, cli: Run) -> None:
    status, out, _ = cli("gate", "build", run, "--out", "g")
    assert status == 0
    assert "150 rows, 150 different prompts" in out
    status, out, _ = cli("gate", "route", "g", PROMPT)
    assert status == 0
    for part in (
        "base (unsure)",
        "not calibrated",
        "threshold none",
        "rows.jsonl:",
        "the largest of x",
        "encoder loaded in",
    ):
        assert part in out
    calibrate(Path("g"), 0.5)
    status, out, _ = cli("gate", "route", "g", PROMPT, "--json", "--rows", "1")
    assert status == 0
    found = json.loads(out)
    assert (found["route"], found["band"], found["threshold"], len(found["nearest"])) == ("specialist", "in", 0.5, 1)
    assert set(found["nearest"][0]) == {"similarity", "prompt", "where"}
    status, out, _ = cli("gate", "route", "g", "")
    assert (status, "the query is empty" in out) == (0, True)
    assert "score        nearest none" in out
    status, _, err = cli("gate", "route", "nowhere", PROMPT)
    assert status == 2
    assert err.count("\n") == 1
    assert "gate build" in err


def test_generate_answers_as_the_gate_says(run: Path, cli: Run) -> None:
    gate = build(run).folder
    answers = {name: generate(load(m), PROMPT, max_tokens=24).text for name, m in (("base", "nano"), ("run", str(run)))}
    assert answers["base"] != answers["run"]
    for accept, route, answer in ((0.5, "specialist", "run"), (2.0, "base", "base")):
        calibrate(gate, accept)
        status, out, err = cli("generate", run, PROMPT, "--gate", gate, "--max-tokens", "24")
        assert status == 0
        assert out == answers[answer] + "\n"
        assert err.startswith(f"[{route}: nearest 0.")
    status, out, err = cli("generate", "nano", PROMPT, "--adapter", run, "--gate", gate, "--max-tokens", "24")
    assert (status, out) == (0, answers["base"] + "\n")
    status, _, err = cli("generate", "nano", PROMPT, "--gate", gate)
    assert status == 2
    assert "a gate needs the adapter" in err
    other = Path(shutil.copytree(run, "other"))
    (other / "adapter_config.json").write_text((other / "adapter_config.json").read_text() + "\n")
    status, _, err = cli("generate", other, PROMPT, "--gate", gate)
    assert status == 2
    assert "the gate of another adapter" in err


@pytest.fixture(scope="module")
def nano() -> Gemma:
    return load("nano")


def test_examples_stand_before_the_query(run: Path, nano: Gemma) -> None:
    decision = Gate.load(build(run).folder).route(PROMPT, k=10)
    template = nano.template
    query = {"role": "user", "content": PROMPT}
    made = examples(decision, 3, 1000, template)
    assert [m["role"] for m in made] == ["user", "assistant"] * 3
    assert [m["content"] for m in made[::2]] == [n.prompt for n in decision.nearest[2::-1]]
    assert made[-1]["content"] == decision.nearest[0].answer
    alone, all_ = len(template.prompt([query])), len(template.prompt([*made, query]))
    for budget in (all_ - alone, all_ - alone - 1, 1):
        some = examples(decision, 3, budget, template)
        assert len(template.prompt([*some, query])) - alone <= budget
        assert len(some) == {all_ - alone: 6, all_ - alone - 1: 4, 1: 0}[budget]
    assert generate(nano, [*made, query], max_tokens=2).prompt_tokens == all_
    with pytest.raises(UserError, match="at least 1"):
        examples(decision, 0, 10, template)


def test_an_example_is_taken_once(run: Path, nano: Gemma) -> None:
    decision = Gate.load(build(run).folder).route(PROMPT, k=2)
    twice = type(decision)(**{**vars(decision), "nearest": decision.nearest[:1] * 2 + decision.nearest[1:]})
    assert examples(twice, 2, 1000, nano.template) == examples(decision, 2, 1000, nano.template)


def test_eval_and_bench_send_every_query_where_the_gate_says(run: Path, cli: Run) -> None:
    gate = build(run).folder
    calibrate(gate, 0.5)
    suite, far = Path("mine.jsonl"), "\u6771\u4eac \u306e \u5929\u6c17"
    items = [{"id": name, "prompt": p, "expect": [{"rule": "no code"}]} for name, p in (("near", PROMPT), ("far", far))]
    suite.write_text("\n".join(map(json.dumps, items)))
    short = ("--max-tokens", "8")
    status, out, err = cli("eval", suite, "--model", run, "--gate", gate, "--compare", run, *short)
    assert (status, err) == (0, "")
    kept = (run / f"eval/mine/{run.name}-gated/results.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, kept)}
    assert {name: row["route"] for name, row in rows.items()} == {"near": "specialist", "far": "base"}
    assert rows["near"]["text"] == generate(load(str(run)), PROMPT, max_tokens=8).text
    assert rows["far"]["text"] == generate(load("nano"), far, max_tokens=8).text
    assert "answered by" not in out  # of two models the comparison is shown
    assert "answered by specialist: bad " in cli("eval", suite, "--model", run, "--gate", gate, *short)[1]
    status, out, err = cli("bench", run, "--gate", gate, "--prompts", suite, *short)
    assert (status, err) == (0, "")
    assert "1 to specialist, 1 to base" in out
    calibrate(gate, 2.0)
    status, _, err = cli("eval", suite, "--model", run, "--gate", gate, *short)
    assert (status, "made with another gate" in err) == (2, True)
    status, _, err = cli("eval", suite, "--model", "nano", "--gate", gate, *short)
    assert (status, "a gate needs the adapter" in err) == (2, True)
