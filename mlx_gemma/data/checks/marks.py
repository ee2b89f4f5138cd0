"""The `template` check: text in messages that is, or looks like, a part of a chat template.

Three kinds. Control tokens of the model's own tokenizer (`<|turn>`) would end or forge a turn: such a row cannot be
trained, and ChatTemplate refuses it. Control tokens that only hidden characters or wide forms keep apart are somebody's
attempt at that. Markers of other models' templates (`<|im_end|>`, `[INST]`, `<think>`) are plain text to this model,
which would learn to write them; they are what a data set was exported with. Markers in quotes, as a program names them,
are no fault.

    check = template(gemma.template.control_tokens)
    reasons = list(check(row))
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlx_gemma.data.checks.found import Found, reasons
from mlx_gemma.data.formats import Row
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.visible import one_line

MARKERS = re.compile(
    r"""
      <\|/?[A-Za-z_][\w-]{0,40}\|>                # ChatML, Llama 3, Phi, GPT, Harmony: <|im_start|>, <|eot_id|>
    | <\uff5c[\w\u2581]{1,40}\uff5c>                  # DeepSeek
    | </?(?:start|end)_of_turn>                   # Gemma 1 to 3
    | \[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\] | <</?SYS>>      # Llama 2, Mistral
    | </?think(?:ing)?> | </?tool_(?:call|response)>                                        # DeepSeek, Qwen, Hermes
    | ^\#\#\#[ ]?(?:Instruction|Input|Response|Human|Assistant|User|System):               # Alpaca, Vicuna
    """,
    re.VERBOSE | re.MULTILINE,
)
QUOTES = "\"'`"

# What stands between characters without being seen, and the wide forms of ASCII.
APART = "\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f"
WIDE = 0xFEE0  # from an ASCII character to its wide form
DISGUISE = re.compile(f"[{APART}]|[\uff01-\uff5e]")


@dataclass(frozen=True)
class TemplateCheck:
    """Finds template parts in every turn of a row; made by `template`, can be pickled. About 10 us for a short row.

    Args:
        control: a pattern of the control tokens.
        disguised: one of the same, with what is hidden between its characters, or wide.
    """

    control: re.Pattern[str]
    disguised: re.Pattern[str]

    def __call__(self, row: Row) -> Iterator[Reason]:
        yield from reasons("template", (f for n, m in enumerate(row.messages, 1) for f in self._found(n, m["content"])))

    def _found(self, turn: int, text: str) -> Iterator[Found]:
        if "<" in text:
            for token in self.control.finditer(text):
                what = f"the control token {token[0]}, which is no text to the tokenizer"
                yield Found(token[0], what, turn, text, token.start())
            yield from _edges(turn, text)
        if not text.isascii() and DISGUISE.search(text):
            for token in self.disguised.finditer(text):
                if not self.control.fullmatch(token[0]):
                    what = f"{one_line(token[0])}, a control token in disguise"
                    yield Found("disguised control token", what, turn, text, token.start())
        for marker in MARKERS.finditer(text):
            if not self.control.fullmatch(marker[0]) and not _quoted(text, marker):
                what = f"{marker[0]}, a marker of another model's template"
                yield Found(marker[0], what, turn, text, marker.start())


def template(control_tokens: Sequence[str]) -> TemplateCheck:
    """The check for a tokenizer with these control tokens."""
    longest_first = sorted(control_tokens, key=len, reverse=True)
    disguised = (f"[{APART}]*".join(map(_either_form, token)) for token in longest_first)
    return TemplateCheck(re.compile("|".join(map(re.escape, longest_first))), re.compile("|".join(disguised)))


def _either_form(character: str) -> str:
    wide = chr(ord(character) + WIDE) if "!" <= character <= "~" else ""
    return f"[{re.escape(character)}{wide}]"


def _quoted(text: str, marker: re.Match[str]) -> bool:
    before, behind = text[marker.start() - 1 : marker.start()], text[marker.end() : marker.end() + 1]
    return before == behind and before in QUOTES and before != ""


def _edges(turn: int, text: str) -> Iterator[Found]:
    """`<s>` and `</s>` of Llama and Mistral, at a message's ends only: elsewhere they are HTML."""
    stripped = text.strip()
    begins, ends = stripped.startswith("<s>"), stripped.endswith("</s>")
    if begins and (ends or "</s>" not in text):
        yield Found("<s>", "<s>, a marker of another model's template", turn, text, text.index("<s>"))
    if ends and text.count("<s>") == begins:
        yield Found("</s>", "</s>, a marker of another model's template", turn, text, text.rindex("</s>"))
