"""The tags of a prompt that name LoRAs."""

import pytest
from webui_engine.errors import RequestInvalid, Unsupported
from webui_engine.lora_tags import Tag, split


@pytest.mark.parametrize(
    ("text", "words", "tags"),
    [
        ("a dog", "a dog", ()),
        ("a <lora:dog> here", "a  here", (Tag("dog", 1, 1),)),
        ("<lora:dog:0.5>a", "a", (Tag("dog", 0.5, 0.5),)),
        ("a<lora:dog:-0.5:.25>", "a", (Tag("dog", -0.5, 0.25),)),
        ("a<lora:dog:unet=2>", "a", (Tag("dog", 1, 2),)),
        ("a<lora:dog:te=2>", "a", (Tag("dog", 2, 2),)),
        ("a<lora:dog:0.5:unet=0>", "a", (Tag("dog", 0.5, 0),)),
        (
            "<lora:a:1>, (sea:1.2) <LyCo:my dog, 500 steps:2>",
            ", (sea:1.2) ",
            (Tag("a"), Tag("my dog, 500 steps", 2, 2)),
        ),
        ("<b>bold</b>", "<b>bold</b>", ()),
    ],
)
def test_tags_are_taken_out(text: str, words: str, tags: tuple[Tag, ...]) -> None:
    assert split("prompt", text) == (words, tags)


@pytest.mark.parametrize(
    ("tag", "error"),
    [
        ("<lora:>", RequestInvalid),
        ("<lora: :1>", RequestInvalid),
        ("<lora:dog:much>", RequestInvalid),
        ("<lora:dog:nan>", RequestInvalid),
        ("<lora:dog:1:inf>", RequestInvalid),
        ("<lora:dog:>", RequestInvalid),
        ("<lora:dog:1:1:8>", Unsupported),
        ("<lora:dog:dyn=8>", Unsupported),
        ("<hypernet:dog:1>", Unsupported),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_tag(tag: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"prompt: .*{tag}"):
        split("prompt", f"a {tag}")


def test_tags_that_are_not_wanted_are_dropped_unread() -> None:
    assert split("prompt", "a <lora:dog:much> b <hypernet:x:1>", wanted=False) == ("a  b ", ())
