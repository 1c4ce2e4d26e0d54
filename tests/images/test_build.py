"""Names, choices and the base: what `make images` decides before an engine is asked."""

import sys
from pathlib import Path

import pytest

from images import base, build
from images.catalogue import IMAGES, ROOT

CAPTIONER, TRAINER = IMAGES[0], IMAGES[1]


def test_all_distributions_have_the_version_that_images_are_tagged_with() -> None:
    for path in (
        *ROOT.glob("services/*/pyproject.toml"),
        *ROOT.glob("libs/*/pyproject.toml"),
        ROOT / "cli/pyproject.toml",
    ):
        assert f'version = "{build.version()}"' in path.read_text(), path


def test_variants_are_told_apart_by_their_tag() -> None:
    assert build.reference(CAPTIONER, "localhost", "0.1.0", "cpu") == "localhost/darkroom-captioner:0.1.0"
    assert build.reference(CAPTIONER, "r.example/ai", "2", "cuda") == "r.example/ai/darkroom-captioner:2-cuda"
    assert build.reference(TRAINER, "r.example/ai", "2", "cuda") == "r.example/ai/darkroom-trainer:2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("captoner",), "'captoner' is no image; there are captioner, trainer, dreambooth"),
        (("--torch", "rocm"), "choose from"),
        (("--wheels", "/no/such/folder"), "'/no/such/folder' is no folder"),
        (("--engine", "kaniko"), "choose from"),
    ],
)
def test_mistakes_are_named(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["build", *arguments])
    with pytest.raises(SystemExit):
        build.main()
    assert said in capsys.readouterr().err


def test_without_an_engine_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["build", "trainer"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.main() == 1
    assert "error: docker is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sources.list", "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main\n"),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n"),
        (
            "sources.list.d/several.sources",
            "URIs: http://mirror.example/debian-security\n\nURIs: http://mirror.example/debian/\n",
        ),
    ],
)
def test_the_base_comes_from_the_mirror_of_apt(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert base.mirror_of_apt(tmp_path) == "http://mirror.example/debian"


def test_the_base_comes_from_debian_where_apt_names_none(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("# empty\n")
    assert base.mirror_of_apt(tmp_path) == "http://deb.debian.org/debian"


def test_the_base_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(base.BaseNotMade, match="debootstrap and buildah not found; on Debian: apt-get install"):
        base.ensure()
