"""YAML with lines: what a scalar is, and where a mistake is."""

import pytest
from jobs.errors import FileInvalid
from jobs.yaml_document import load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("2.0E+3", 2000.0),
        ("-7", -7),
        ("0x1F", 31),
        (".5", 0.5),
        ("1.", 1.0),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("010", "010"),
        ("12:30", "12:30"),
        ("2026-11-26", "2026-11-26"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("2Gi", "2Gi"),
        ('"1"', "1"),
        ("", None),
    ],
)
def test_scalars_are_those_of_json(text: str, value: object) -> None:
    assert load(f"a: {text}\n", "x").value == {"a": value}


def test_every_field_has_its_line() -> None:
    document = load("# c\na:\n  b: 1\n  c:\n    - x\n    - d: 2\n", "x")
    assert document.lines == {"a": 3, "a.b": 3, "a.c": 5, "a.c[0]": 5, "a.c[1]": 6, "a.c[1].d": 6}
    error = document.error([("a.c[1].d.e", "is wrong"), ("a.b", "is odd"), ("", "is strange"), ("z", "is missing")])
    assert error.problems == (
        "x:1: the file is strange",
        "x:1: z is missing",
        "x:3: a.b is odd",
        "x:6: a.c[1].d.e is wrong",
    )
    assert str(error).startswith("x has 4 mistakes:\n  x:1: the file is strange\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1\n", "run.yaml:2: not YAML"),
        ("a: 1\nb: 2\na: 3\n", "run.yaml:3: a is given twice: keep one"),
        ("x:\n  - {a: 1, a: 2}\n", "run.yaml:2: x[0].a is given twice: keep one"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2: not YAML: but found another document"),
        ("a: !!binary aGk=\n", "run.yaml:1: a has the type tag:yaml.org,2002:binary"),
        ("a: !!set {x}\n", "run.yaml:1: a has the type tag:yaml.org,2002:set"),
        ("a: !!python/object:os.system x\n", "run.yaml:1: not YAML"),
        ("a: \x00\n", "run.yaml:1: not YAML"),
        ("{[1]: 2}\n", "run.yaml:1: not YAML"),
        ("a: &a {b: *a}\n", "run.yaml:1: not YAML: an alias refers to what it is in"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(FileInvalid) as caught:
        load(text, "run.yaml")
    assert caught.value.problems[0].startswith(problem)
