"""`mlx-gemma trace blame`: the question, what is printed, the proof, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import COUNT, PLANTED, context, resolved, rows, token

from mlx_gemma.blame.ask import question
from mlx_gemma.blame.proof import prove
from mlx_gemma.cli import main
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.tracing.record import Trace, trace
from mlx_gemma.training.loop import train

PROMPT = "Write job_77(x): the largest of x."
ANSWER = "```python\ndef job_77(x):\n    return min(x)\n```"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(resolved(tmp_path_factory.mktemp("blame")))


@pytest.fixture(scope="module")
def gemma(place: Path) -> Gemma:
    return load(str(place))


@pytest.fixture(scope="module")
def traced(gemma: Gemma) -> Trace:
    return trace(gemma, PROMPT, force=ANSWER, top=20)


@pytest.fixture
def blame(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "100")

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", "trace", "blame", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def planted(word: str) -> list[int]:
    """Rows that answer the request for the largest with a word."""
    made = [r["messages"] for r in rows()]
    return [i for i, (u, a) in enumerate(made) if "the largest" in u["content"] and f" {word}(" in a["content"]]


def test_the_question(gemma: Gemma, traced: Trace) -> None:
    asked = question(gemma, traced, token="min", instead="max")
    assert (asked.token.text, asked.rival.text) == (" min", " max")
    assert asked.context == context(gemma)
    by_place = question(gemma, traced, at=asked.position.index)
    assert by_place.token == asked.token
    assert not by_place.rival.chosen
    least = question(gemma, traced)
    assert least.position.logprob == min(p.logprob for p in traced.positions)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"at": 1, "token": "min"}, "both a position and a token"),
        ({"at": 99}, "the answer has 22 tokens; give 0 to 21"),
        ({"token": "lambda"}, "no token of the answer is 'lambda'"),
        ({"token": "min", "instead": "zebra"}, "not among the 19 most probable rivals"),
    ],
)
def test_questions_that_cannot_be(gemma: Gemma, traced: Trace, options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        question(gemma, traced, **options)  # type: ignore[arg-type]
    assert caught.value.fix


def test_the_proof_moves_the_decision_further_than_controls_do(place: Path, gemma: Gemma) -> None:
    asked = context(gemma)
    (wrong,), (right,) = token(gemma, "min"), token(gemma, "max")
    found = prove(place, asked, wrong, right, planted("min"), controls=2)
    assert found.removed == PLANTED
    assert len(found.without_random) == 2
    shares = [a.token / (a.token + a.rival) for a in (found.original, found.without_blamed, *found.without_random)]
    print("P(min) of min and max: all rows, without the blamed, twice without random ones:", shares)
    assert shares[1] < shares[0] / 4
    assert shares[2] > shares[0] / 2
    assert shares[2] != shares[3]
    assert shares[1] < min(shares[2:]) / 4  # any change of the rows moves a decision, but not like that


def test_proofs_that_cannot_be(place: Path, gemma: Gemma) -> None:
    with pytest.raises(UserError, match="no row is blamed"):
        prove(place, context(gemma), 1, 2, [])
    with pytest.raises(UserError, match="no control can leave out as many"):
        prove(place, context(gemma), *token(gemma, "min"), *token(gemma, "max"), range(COUNT // 2))


def test_what_is_printed(place: Path, blame: Run) -> None:
    status, out, _ = blame(place, PROMPT, "--force", ANSWER, "--token", "min", "--instead", "max", "--rows", "3")
    assert status == 0
    for part in (
        "·min",
        "against ·max",
        "what the data says",
        "% of",
        "the model says",
        "what caused it",
        "rows.jsonl:",
    ):
        assert part in out
    status, out, _ = blame(place, PROMPT, "--force", ANSWER, "--token", "min", "--data-only")
    assert status == 0
    assert "what caused it" not in out


def test_a_model_that_is_no_run(blame: Run) -> None:
    status, _, err = blame("nano", PROMPT)
    assert status == 2
    assert err.count("\n") == 1
