"""Dockerfiles as instructions and stages, for the tests of this folder."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from images.catalogue import ROOT, Image


class Instruction(NamedTuple):
    """One instruction with its continuation lines joined: ("RUN", "sh ...")."""

    word: str
    rest: str

    @property
    def flags(self) -> list[str]:
        """Options such as --from=lock."""
        return [word for word in self.rest.split() if word.startswith("--")]

    @property
    def paths(self) -> list[str]:
        """Of a COPY: the sources, then the target."""
        return [word for word in self.rest.split() if not word.startswith("--")]


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next; base and name as written there, name "" for the last."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[Instruction]:
        return [one for one in self.instructions if one.word == word]


@dataclass(frozen=True)
class Dockerfile:
    """arguments: the ARGs before the first FROM."""

    arguments: tuple[str, ...]
    stages: tuple[Stage, ...]

    @property
    def final(self) -> Stage:
        return self.stages[-1]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def below_final(self) -> list[Stage]:
        """The stages whose layers the image has, from the one right below down to the base."""
        below = []
        base = self.final.base
        while base != "${BASE}":
            below.append(self.stage(base))
            base = below[-1].base
        return below

    def environment(self) -> dict[str, str]:
        """ENV of the image."""
        pairs = [word.partition("=") for one in self.final.all("ENV") for word in shlex.split(one.rest)]
        return {name: value for name, _, value in pairs}

    def labels(self) -> dict[str, str]:
        pairs = [word.partition("=") for one in self.final.all("LABEL") for word in shlex.split(one.rest)]
        return {name.removeprefix("org.opencontainers.image."): value for name, _, value in pairs}


@cache
def read(image: Image) -> Dockerfile:
    """The Dockerfile of an image."""
    text = re.sub(r"^#.*\n", "", (ROOT / image.dockerfile).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    instructions = [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    stages: list[Stage] = []
    arguments: list[str] = []
    for one in instructions:
        if one.word == "FROM":
            base, _, name = one.rest.partition(" AS ")
            stages.append(Stage(base, name, ()))
        elif not stages:
            arguments.append(one.rest)
        else:
            last = stages[-1]
            stages[-1] = Stage(last.base, last.name, (*last.instructions, one))
    return Dockerfile(tuple(arguments), tuple(stages))
