"""From messages to token ids, and to the positions that are trained.

The model's own chat template is used, with thinking explicitly off: mlx-lm's tokenizer wrapper would turn it on, and a
model would be trained on prompts that nobody sends (reference: mlx-lm issue 1352). The supervised span is read off the
rendered tokens, from behind the `<|turn>model` header to `<turn|>` inclusive, never computed from an assumed prefix:
the larger Gemma 4 templates render a generation prompt that is no prefix of the full conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_gemma.digest import digest_text
from mlx_gemma.errors import DataError, ModelError
from mlx_gemma.gemma4.vocabulary import Vocabulary

Message = dict[str, str]


@dataclass(frozen=True)
class Example:
    """A rendered conversation: `tokens[i]` is a training target where `supervised[i]`."""

    tokens: list[int]
    supervised: list[bool]

    @property
    def targets(self) -> int:
        return sum(self.supervised)


class ChatTemplate:
    """Renders conversations with a checkpoint's own template and tokenizer. Rendering takes about 0.2 ms a row."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / name).is_file():
                raise ModelError(f"no {name}", where=folder, fix="download the whole checkpoint, tokenizer included")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise ModelError(f"unreadable tokenizer: {e}", where=folder, fix="download the checkpoint again") from e
        if not self.tokenizer.chat_template:
            raise ModelError(
                "no chat template",
                where=folder,
                fix="use an instruction-tuned checkpoint (…-it) or add chat_template.jinja",
            )
        self.start, self.end = (self._id(t) for t in ("<|turn>", "<turn|>"))

    def _id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise ModelError(f"the tokenizer has no {token} token, so it is not Gemma 4's")
        return int(found)

    @cached_property
    def digest(self) -> str:
        return digest_text(str(self.tokenizer.chat_template))

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer turns into control tokens; in a message they would end or forge a turn."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(t.content for t in added if t.special)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Plain text to ids, no <bos> added: the template writes its own."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def render(self, messages: Sequence[Message], *, generate: bool) -> str:
        """The conversation as text; with `generate`, ending where the model's turn begins.

        Raises:
            DataError: a message holds a control token, or the template refuses the roles.
        """
        for message in messages:
            for token in self.control_tokens:
                if token in message["content"]:
                    raise DataError(
                        f"the {message['role']} message contains the control token {token}", fix="remove or escape it"
                    )
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=generate, enable_thinking=False
                )
            )
        except Exception as e:  # whatever the checkpoint's own jinja raises
            raise DataError(f"the chat template refuses these messages: {e}") from e

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation that the model is to continue."""
        return self.encode(self.render(messages, generate=True))

    def example(self, messages: Sequence[Message], *, turns: str = "all") -> Example:
        """Token ids of a whole conversation, and which of them are trained: the model's turns and their <turn|>.

        Args:
            turns: `all` of the model's turns, or only the `last`.
        """
        return self.supervise(self.encode(self.render(messages, generate=False)), turns=turns)

    def supervise(self, tokens: list[int], *, turns: str = "all") -> Example:
        """`example` for a conversation that is rendered and encoded already."""
        supervised = [False] * len(tokens)
        spans = self._model_spans(tokens)
        for first, last in spans if turns == "all" else spans[-1:]:
            supervised[first:last] = [True] * (last - first)
        return Example(tokens, supervised)

    def _model_spans(self, tokens: list[int]) -> list[tuple[int, int]]:
        header = self._header
        spans, at = [], 0
        while self.start in tokens[at:]:
            at = tokens.index(self.start, at) + 1
            if tokens[at : at + len(header)] == header:
                first = at + len(header)
                if self.end not in tokens[first:]:
                    raise DataError("the chat template does not end the model's turn with <turn|>")
                last = tokens.index(self.end, first) + 1
                spans.append((first, last))
        return spans

    @cached_property
    def _header(self) -> list[int]:
        return self.encode("model\n")
