"""The prompt language: A1111's documented examples, BREAK, chunks, and what is refused."""

import pytest
from webui_engine.errors import RequestInvalid, Unsupported
from webui_engine.prompts import Chunk, Span, check, parse, split

DOCUMENTED = [
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    (r"\(literal\]", [("(literal]", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [
            ("a ", 1.0),
            ("house", 1.5730000000000004),
            (" ", 1.1),
            ("on", 1.0),
            (" a ", 1.1),
            ("hill", 0.55),
            (", sun, ", 1.1),
            ("sky", 1.4641000000000006),
            (".", 1.1),
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), DOCUMENTED)
def test_the_examples_of_the_a1111_documentation(text: str, expected: list[tuple[str, float]]) -> None:
    spans = parse(text)
    assert [span.text for span in spans] == [text for text, _ in expected]
    assert [span.weight for span in spans] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [Span("")]),
        ("a BREAK b", [Span("a"), Span("", is_break=True), Span("b")]),
        ("(a BREAK b:2)", [Span("a", 2.0), Span("", is_break=True), Span("b", 2.0)]),
        ("BREAKFAST", [Span("BREAKFAST")]),
        ("a: b", [Span("a: b")]),
        ("closes ) nothing", [Span("closes ) nothing")]),
        (r"a \ b \\ c", [Span("a \\ b \\ c")]),
        ("(a : 1.5 )", [Span("a ", 1.5)]),
    ],
)
def test_the_rest_of_the_grammar(text: str, expected: list[Span]) -> None:
    assert parse(text) == expected


def test_square_brackets_undo_round_ones() -> None:
    (span,) = parse("([a])")
    assert span.weight == pytest.approx(1.0)


def words(text: str) -> list[int]:
    """One token a word, the comma being 0."""
    return [0 if word == "," else len(word) for word in text.replace(",", " , ").split()]


def test_an_empty_prompt_is_one_empty_chunk() -> None:
    assert split(parse(""), words, 5, 0) == [Chunk((), ())]


def test_a_long_prompt_is_cut_at_the_length() -> None:
    chunks = split([Span("a bb ccc dddd eeeee", 1.5)], words, 2, 0)
    assert chunks == [Chunk((1, 2), (1.5, 1.5)), Chunk((3, 4), (1.5, 1.5)), Chunk((5,), (1.5,))]


def test_a_cut_moves_back_to_the_last_comma() -> None:
    chunks = split([Span("a bb, ccc dddd")], words, 4, 0)
    assert [chunk.tokens for chunk in chunks] == [(1, 2, 0), (3, 4)]


def test_a_comma_far_back_is_no_place_to_cut() -> None:
    chunks = split([Span("a, " + "bb " * 30)], words, 25, 0)
    assert [len(chunk.tokens) for chunk in chunks] == [25, 7]


def test_break_starts_a_chunk() -> None:
    chunks = split(parse("a BREAK bb"), words, 5, 0)
    assert [chunk.tokens for chunk in chunks] == [(1,), (2,)]


@pytest.mark.parametrize(
    "text", ["<lora:dog:0.8>", "a [cat:dog:0.5] b", "[cat:0.5]", "[cat|dog]", "a AND b", "[cat::10]"]
)
def test_what_would_be_drawn_as_words_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match="prompt"):
        check("prompt", text)


@pytest.mark.parametrize("text", ["[calm] sea", "[(sea:1.2)]", r"\[a|b\]", "SAND and LAND", "<b>bold</b>"])
def test_what_only_looks_like_it_is_not_refused(text: str) -> None:
    check("prompt", text)


def test_a_book_is_no_prompt() -> None:
    with pytest.raises(RequestInvalid, match="20000"):
        check("prompt", "a" * 20_001)
