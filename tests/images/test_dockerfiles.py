"""What every image promises, read from its Dockerfile. That they build and start, the cluster tests show."""

import importlib.util
import json
import re
import tomllib
from fnmatch import fnmatch

import pytest

from images.build import SBOM, version
from images.catalogue import IMAGES, ROOT, Image
from tests.images.dockerfiles import Dockerfile, Instruction, read

USER = "10001:10001"
CODE = ("protos", "libs", "services", "cli")
SHARED_STAGES = ("wheels", "tools", "protos", "runtime", "torch")
# All that comes from the code into the layers below it: the list of packages, which changes with the lock alone.
LOCKED = ["/lock/requirements.txt", "/usr/share/darkroom/"]

every_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


def entrypoint(file: Dockerfile) -> list[str]:
    (one,) = file.final.all("ENTRYPOINT")
    words: list[str] = json.loads(one.rest)
    return words


def test_every_dockerfile_is_in_the_catalogue() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in ("services", "cli", "libs", "images")
        for path in (ROOT / folder).rglob("*Dockerfile")
    }
    assert found == {image.dockerfile for image in IMAGES}


@every_image
def test_the_base_can_be_chosen_and_is_a_public_slim_one_by_default(image: Image) -> None:
    file = read(image)
    assert [re.sub("=.*", "", argument) for argument in file.arguments] == ["BASE"]
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.1\d+-slim-\w+", file.arguments[0])
    assert file.stage("runtime").base == file.stage("tools").base == "${BASE}"


@every_image
def test_it_runs_as_a_number_that_may_write_its_volumes_only(image: Image) -> None:
    file = read(image)
    assert [one.rest for one in file.final.all("USER")] == [USER]
    (volumes,) = file.final.all("VOLUME")
    writable = set(json.loads(volumes.rest))
    environment = file.environment()
    assert (environment["HOME"], environment["TMPDIR"]) == ("/tmp", "/tmp")
    folders = {value for name, value in environment.items() if name.startswith("DARKROOM_") and name.endswith("_DIR")}
    assert writable == {"/tmp"} | folders


@every_image
def test_it_starts_a_package_of_this_repository(image: Image) -> None:
    words = entrypoint(read(image))
    if image.name == "darkroom-tools":
        scripts = tomllib.loads((ROOT / "cli" / "pyproject.toml").read_text())["project"]["scripts"]
        assert words[0] in scripts
        return
    assert words[:2] == ["python", "-m"]
    assert words[2].replace("_", "-") == image.name.removeprefix("darkroom-")
    assert importlib.util.find_spec(f"{words[2]}.__main__") is not None


@every_image
def test_labels_say_what_it_is(image: Image) -> None:
    file = read(image)
    labels = file.labels()
    description = labels.pop("description")
    assert len(description) > 20
    assert labels == {
        "title": image.name,
        "version": "${VERSION}",
        "revision": "${REVISION}",
        "licenses": "Apache-2.0",
    }
    arguments = dict(one.rest.split("=") for one in file.final.all("ARG"))
    assert arguments == {"VERSION": version(), "REVISION": "unknown"}


@every_image
def test_the_last_layer_is_the_code_and_the_ones_below_do_not_see_it(image: Image) -> None:
    file = read(image)
    below = file.below_final()
    assert [stage.name for stage in below] == ["dependencies", *(["torch"] if image.torch else []), "runtime"]
    copies = file.final.all("COPY")
    assert (copies[-1].flags, copies[-1].paths) == (["--from=source"], ["/source", "/"])
    assert {flag for one in copies for flag in one.flags} <= {"--from=source", "--from=models"}
    assert not file.final.all("RUN")
    for one in (one for stage in (*below, file.stage("tools")) for one in stage.all("COPY")):
        if one.flags:
            assert (one.flags, one.paths) == (["--from=lock"], LOCKED)
        else:
            assert not any(path.startswith(CODE) for path in one.paths), one


@every_image
def test_programs_of_the_build_are_mounted_not_copied(image: Image) -> None:
    """What a layer of the image gets is what the script installs."""
    for stage in read(image).below_final():
        for run in stage.all("RUN"):
            *mounts, shell, script = run.rest.split()
            assert shell == "sh"
            assert script.startswith("/run/steps/")
            targets = [mount.rpartition("target=")[2] for mount in mounts if "type=secret" not in mount]
            assert all(target.startswith("/run/") for target in targets)


@every_image
def test_a_changed_script_changes_every_step(image: Image) -> None:
    """By its digest: not every engine looks into mounts."""
    for stage in read(image).stages:
        words = [one.word if one.word != "ARG" else one.rest for one in stage.instructions]
        for place, one in enumerate(stage.instructions):
            assert one.word != "RUN" or "STEPS" in words[:place], (stage.name, one)


@every_image
def test_certificates_indexes_and_secrets_pass_through(image: Image) -> None:
    file = read(image)
    for stage in file.stages:
        assert not stage.all("ADD")
        for one in (*stage.all("ARG"), *stage.all("ENV")):
            assert not re.search("TOKEN=|SECRET|PASSWORD|_KEY|INDEX_URL|CERT", one.rest), one
        for run in stage.all("RUN"):
            assert fetches(run) == ("--mount=type=secret,id=network" in run.flags)
            assert fetches(run) == ("--mount=type=secret,id=ca" in run.flags)
            assert fetches(run) == ("--mount=type=cache,target=/run/cache" in run.flags)


def fetches(run: Instruction) -> bool:
    """Whether it needs the package index. What has our own code in it must not."""
    return run.rest.endswith(("/tools.sh", "/torch.sh", "/dependencies.sh"))


def test_the_stages_that_all_have_are_the_same() -> None:
    for name in SHARED_STAGES:
        stages = {stage for image in IMAGES for stage in read(image).stages if stage.name == name}
        assert len(stages) == 1, name


def test_services_listen_where_the_chart_looks() -> None:
    ports = {
        image.name: {
            name.removeprefix("DARKROOM_").removesuffix("PORT").strip("_"): int(value)
            for name, value in read(image).environment().items()
            if name.endswith("PORT")
        }
        for image in IMAGES
    }
    service = {"": 50051, "METRICS": 9090}
    assert ports == {
        "darkroom-captioner": service,
        "darkroom-trainer": service,
        "darkroom-dreambooth": {},
        "darkroom-converter": service,
        "darkroom-webui-gateway": {**service, "HTTP": 7860},
        "darkroom-webui-engine": {"": 7861, "METRICS": 9090},
        "darkroom-tools": {},
    }
    for image in IMAGES:
        exposed = {int(port) for one in read(image).final.all("EXPOSE") for port in one.rest.split()}
        assert exposed == set(ports[image.name].values())


def test_the_context_holds_what_is_copied_and_little_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    copied = {
        path.rstrip("/")
        for image in IMAGES
        for stage in read(image).stages
        for one in stage.all("COPY")
        if not one.flags
        for path in one.paths[:-1]
    }
    copied.add("images/steps/torch.sh")  # mounted
    for path in copied:
        assert in_context(path, lines), path
    for path in (".git/config", ".venv/bin/python", "data/token", "out/x.png", "tests/conftest.py", "cli/.env"):
        assert not in_context(path, lines), path
    for path in ("models/tiny/train.py", "models/tiny/training/unet.py", "libs/chassis/chassis/__pycache__/a.pyc"):
        assert not in_context(path, lines), path


def in_context(path: str, lines: list[str]) -> bool:
    """The last line that fits a path or one of its folders decides, as in docker."""
    inside = True
    folders = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 2)]
    for line in lines:
        pattern = line.removeprefix("!")
        names = [pattern.removeprefix("**/")] if pattern.startswith("**/") else []
        if any(fnmatch_path(folder, pattern) or fnmatch_name(folder, names) for folder in folders):
            inside = line.startswith("!")
    return inside


def fnmatch_path(path: str, pattern: str) -> bool:
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def fnmatch_name(path: str, names: list[str]) -> bool:
    return any(fnmatch(path.rsplit("/", 1)[-1], name) for name in names)


def test_the_list_of_packages_lies_where_the_builder_reads_it() -> None:
    script = (ROOT / "images" / "steps" / "source.sh").read_text()
    assert f"--output-file /source{SBOM}" in script
