from dreambooth.errors import PictureInvalid
from dreambooth.wording import first_few


def test_up_to_twenty_are_all_named() -> None:
    names = [str(number) for number in range(20)]
    assert first_few(names, "names") == names
    assert first_few([], "names") == []


def test_of_many_the_first_are_named_and_the_others_counted() -> None:
    names = [str(number) for number in range(10_000)]
    assert first_few(names, "names") == [*names[:20], "and 9,980 more names"]


def test_an_error_about_ten_thousand_images_is_short_and_has_them_all() -> None:
    error = PictureInvalid(tuple(f"{number}.png: is damaged" for number in range(10_000)))
    assert len(str(error)) < 500
    assert str(error).endswith("; 19.png: is damaged; and 9,980 more problems")
    assert len(error.problems) == 10_000
