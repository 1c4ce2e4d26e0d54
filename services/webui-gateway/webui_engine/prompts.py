"""The prompt language of the A1111 web UI: emphasis, escapes, BREAK, and cutting long prompts into chunks.

`planning.py` checks a prompt here before it is queued; `conditioning.py` turns the chunks into embeddings.
Grammar: `(a)` times 1.1, `[a]` divided by 1.1, `(a:1.3)` times 1.3, `\\(` a literal bracket, an open bracket counts to the
end of the prompt, `BREAK` starts a new chunk. What A1111 has beyond that is refused by `check`, never drawn as text.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from webui_engine.errors import RequestInvalid, Unsupported

ROUND_FACTOR: Final = 1.1
SQUARE_FACTOR: Final = 1 / 1.1
COMMA_BACKTRACK_TOKENS: Final = 20
"""A chunk that would cut a phrase ends at the last comma instead, if that is less than this many tokens back."""
MAX_CHARACTERS: Final = 20_000

_LEXEME = re.compile(
    r"""
    \\(?P<escaped>[()\[\]\\])
  | (?P<open>[(\[])
  | :\s*(?P<factor>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
  | (?P<close>[)\]])
  | \s*\b(?P<break>BREAK)\b\s*
  | (?P<text>(?:(?!\s*\bBREAK\b)[^\\()\[\]:])+|[\\:\s])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_EXTRA_NETWORK = re.compile(r"<(lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)
_EDITING = re.compile(r"\[[^\[\]]*?(?::\s*\d*\.?\d+\s*|\|[^\[\]]*)\]")
_COMPOSING = re.compile(r"\bAND\b")


@dataclass(frozen=True)
class Span:
    """A piece of the prompt with one weight; `is_break` marks a BREAK, whose text is empty."""

    text: str
    weight: float = 1.0
    is_break: bool = False


@dataclass(frozen=True)
class Chunk:
    """What the text encoder reads at once: token ids and one weight each, without start, end and padding."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


def check(field: str, text: str) -> None:
    """Refuse what this engine would otherwise draw as words. Raises Unsupported, RequestInvalid.

    Tags of a prompt that name LoRAs were taken out before; a negative prompt can have none (A1111 draws them as words).
    """
    if len(text) > MAX_CHARACTERS:
        raise RequestInvalid(field, f"found {len(text)} characters, expected at most {MAX_CHARACTERS}")
    if tag := _EXTRA_NETWORK.search(text):
        raise Unsupported(field, tag.group(), "name LoRAs in the prompt")
    if found := _EDITING.search(_ESCAPE.sub("", text)):
        raise Unsupported(field, found.group(), r"write \[ and \] for literal brackets")
    if found := _COMPOSING.search(text):
        raise Unsupported(field, found.group(), "write 'and' in lower case if the word is meant")


def parse(text: str) -> list[Span]:
    """Split a prompt into spans of equal weight; neighbours of equal weight are one span. "" gives one empty span."""
    spans: list[Span] = []
    round_starts: list[int] = []
    square_starts: list[int] = []

    def multiply(start: int, factor: float) -> None:
        spans[start:] = [s if s.is_break else Span(s.text, s.weight * factor) for s in spans[start:]]

    for lexeme in _LEXEME.finditer(text):
        kind, value = lexeme.lastgroup, lexeme.group(lexeme.lastgroup or 0)
        if kind == "open":
            (round_starts if value == "(" else square_starts).append(len(spans))
        elif kind == "factor" and round_starts:
            multiply(round_starts.pop(), float(value))
        elif kind == "close" and value == ")" and round_starts:
            multiply(round_starts.pop(), ROUND_FACTOR)
        elif kind == "close" and value == "]" and square_starts:
            multiply(square_starts.pop(), SQUARE_FACTOR)
        elif kind == "break":
            spans.append(Span("", is_break=True))
        else:  # words, or a closing bracket that closes nothing
            spans.append(Span(value if kind == "escaped" else lexeme.group()))
    for start in round_starts:
        multiply(start, ROUND_FACTOR)
    for start in square_starts:
        multiply(start, SQUARE_FACTOR)
    return _merged(spans) or [Span("")]


def has_emphasis(spans: Iterable[Span]) -> bool:
    """Whether any weight differs from 1."""
    return any(span.weight != 1.0 for span in spans)


def split(
    spans: Sequence[Span], tokenize: Callable[[str], Sequence[int]], length: int, comma: int | None
) -> list[Chunk]:
    """Cut a prompt into chunks of at most `length` tokens; an empty prompt is one empty chunk.

    tokenize turns words into ids without start and end marks; comma is the id of "," (None: the vocabulary has none).
    """
    chunks: list[Chunk] = []
    tokens: list[tuple[int, float]] = []
    after_comma = 0  # number of tokens up to and including the last comma of the chunk, 0 if there is none

    def close(count: int) -> None:
        nonlocal tokens, after_comma
        chunks.append(Chunk(tuple(t for t, _ in tokens[:count]), tuple(w for _, w in tokens[:count])))
        tokens, after_comma = tokens[count:], 0

    for span in spans:
        if span.is_break:
            close(len(tokens))
            continue
        for token in tokenize(span.text):
            if len(tokens) == length and token != comma:
                near = after_comma and length - after_comma < COMMA_BACKTRACK_TOKENS
                close(after_comma if near else length)
            elif len(tokens) == length:
                close(length)
            tokens.append((token, span.weight))
            after_comma = len(tokens) if token == comma else after_comma
    if tokens or not chunks:
        close(len(tokens))
    return chunks


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        last = merged[-1] if merged else None
        if last and not last.is_break and not span.is_break and last.weight == span.weight:
            merged[-1] = Span(last.text + span.text, span.weight)
        else:
            merged.append(span)
    return merged
