"""What counts as a change since a resume point was written."""

from dreambooth import identity

NOW = {"library torch": "2.9", "library tokenizers": "0.23", "image a.png": "11"}


def test_changed_gone_and_new_things_are_named() -> None:
    before = {"library torch": "2.8", "image b.png": "22", "library tokenizers": "0.22"}
    assert identity.differences(before, NOW) == [
        "image a.png is new",
        "image b.png is gone",
        "library tokenizers was 0.22, is 0.23",
        "library torch was 2.8, is 2.9",
    ]


def test_a_library_that_an_older_program_did_not_record_is_no_change() -> None:
    before = {name: value for name, value in NOW.items() if name != "library tokenizers"}
    assert identity.differences(before, NOW) == []
