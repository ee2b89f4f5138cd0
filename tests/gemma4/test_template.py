"""The supervised span is exactly the model's turns, and prompts are what transformers renders with thinking off."""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path

import pytest

from mlx_gemma.errors import DataError, ModelError
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.template import ChatTemplate, Example

USER = {"role": "user", "content": "Write add."}
ANSWER = {"role": "assistant", "content": "def add(a, b):\n    return a + b"}
TALK = [
    USER,
    ANSWER,
    {"role": "user", "content": "And model\nsub?"},
    {"role": "assistant", "content": "def sub(): ..."},
]
SYSTEM = {"role": "system", "content": "Be short."}


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(NANO)


def spans(template: ChatTemplate, example: Example) -> list[str]:
    """The supervised runs of an example, as text."""
    pairs = zip(example.tokens, example.supervised, strict=True)
    return [template.decode([t for t, _ in run]) for on, run in groupby(pairs, key=lambda p: p[1]) if on]


def changed(folder: Path, old: str, new: str) -> ChatTemplate:
    """nano's tokenizer with a piece of its template replaced."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(NANO / name, folder / name)
    text = (NANO / "chat_template.jinja").read_text()
    assert old in text
    (folder / "chat_template.jinja").write_text(text.replace(old, new))
    return ChatTemplate(folder)


def test_answer_and_stop_token_are_trained(template: ChatTemplate) -> None:
    # T20: three peers render Gemma 3's <start_of_turn>, or never train the stop token.
    example = template.example([USER, ANSWER])
    assert spans(template, example) == [ANSWER["content"] + "<turn|>"]
    assert template.decode(example.tokens) == (
        f"<bos><|turn>user\n{USER['content']}<turn|>\n<|turn>model\n{ANSWER['content']}<turn|>\n"
    )
    assert not example.supervised[-1], "the newline behind <turn|> is not trained"
    assert example.targets == sum(example.supervised)


@pytest.mark.parametrize("system", [True, False])
def test_every_model_turn(template: ChatTemplate, system: bool) -> None:
    # T22: the template has no generation markers, so transformers' own assistant mask is all zeros.
    example = template.example([SYSTEM, *TALK] if system else TALK)
    assert spans(template, example) == [m["content"] + "<turn|>" for m in TALK[1::2]]


def test_last_turn_only(template: ChatTemplate) -> None:
    example = template.example(TALK, turns="last")
    assert spans(template, example) == [TALK[-1]["content"] + "<turn|>"]
    assert example.tokens == template.example(TALK).tokens


@pytest.mark.parametrize("answer", ["", "  \n ", "\n\nx", "model", "x\n", "é 漢字 🙂", "user\nmodel\n"])
def test_unusual_answers(template: ChatTemplate, answer: str) -> None:
    # T18: the template trims white space around an answer; what is trained is what it left.
    example = template.example([USER, {"role": "assistant", "content": answer}])
    assert spans(template, example) == [answer.strip() + "<turn|>"]


def test_no_model_turn_trains_nothing(template: ChatTemplate) -> None:
    assert template.example([USER]).targets == 0


def test_generation_prompt_is_a_prefix(template: ChatTemplate) -> None:
    prompt, whole = template.prompt(TALK[:-1]), template.example(TALK, turns="last")
    assert whole.tokens[: len(prompt)] == prompt
    assert whole.supervised.index(True) == len(prompt)


@pytest.mark.parametrize("generate", [True, False])
@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER], TALK, [SYSTEM, *TALK]])
def test_equals_transformers(template: ChatTemplate, messages: list[dict[str, str]], generate: bool) -> None:
    # T21: the template writes <bos>; encoding its text again adds a second one (mlx-lm-lora).
    theirs = template.tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=generate, enable_thinking=False, return_dict=False
    )
    ours = template.prompt(messages) if generate else template.example(messages).tokens
    assert ours == theirs
    assert ours.count(template.tokenizer.bos_token_id) == 1


def test_thinking_is_never_on(tmp_path: Path) -> None:
    """Not even where the template turns it on by default."""
    # T17: mlx-lm's tokenizer turns thinking on for every Gemma 4 row (mlx-lm 1352).
    eager = changed(tmp_path / "eager", "enable_thinking", "(enable_thinking is not defined or enable_thinking)")
    assert "<|think|>" in eager.tokenizer.apply_chat_template([USER], tokenize=False)
    for text in (eager.render([USER], generate=True), eager.render([SYSTEM, *TALK], generate=False)):
        assert "<|think|>" not in text


def test_prompt_that_is_no_prefix(tmp_path: Path) -> None:
    """The larger models' generation prompt ends in an empty thought, which the whole conversation does not have."""
    # T16: mlx-lm's offset then lies beyond the answer, and the loss is 0/0 (mlx-lm 1355).
    ending = "{{- '<|turn>model\\n' -}}{%- endif -%}"
    large = changed(tmp_path / "large", ending, "{{- '<|turn>model\\n<|channel>thought\\n<channel|>' -}}{%- endif -%}")
    assert large.decode(large.prompt([USER])).endswith("<|turn>model\n<|channel>thought\n<channel|>")
    assert spans(large, large.example(TALK)) == [m["content"] + "<turn|>" for m in TALK[1::2]]
    assert spans(large, large.example(TALK, turns="last")) == [TALK[-1]["content"] + "<turn|>"]


@pytest.mark.parametrize("token", ["<turn|>", "<|turn>", "<|think|>", "<|channel>", "<bos>", "<eos>", "<|image|>"])
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_control_tokens_are_refused(template: ChatTemplate, role: str, token: str) -> None:
    # T18: the template strips a thought out of the content without a word.
    talk = [{"role": role, "content": f"a {token} b"}, USER, ANSWER]
    with pytest.raises(DataError, match=r"control token"):
        template.example(talk)


def test_digest_is_the_template_s(template: ChatTemplate, tmp_path: Path) -> None:
    assert template.digest == ChatTemplate(NANO).digest
    assert template.digest != changed(tmp_path / "other", "<turn|>", "<turn|> ").digest


@pytest.mark.parametrize("missing", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_missing_file(tmp_path: Path, missing: str) -> None:
    for name in {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} - {missing}:
        shutil.copyfile(NANO / name, tmp_path / name)
    with pytest.raises(ModelError, match=r"tokenizer|template"):
        ChatTemplate(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {"type": "?"}}'])
def test_damaged_tokenizer(tmp_path: Path, text: str) -> None:
    shutil.copytree(NANO, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "m/tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="tokenizer"):
        ChatTemplate(tmp_path / "m")


def test_template_that_raises(tmp_path: Path) -> None:
    strict = changed(tmp_path / "strict", "{{- bos_token -}}", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match="roles must alternate"):
        strict.prompt([USER])
