"""What is really inside the images: no tools of the build, nothing of the machine that built them, nothing to write to.

What their Dockerfiles promise is in tests/images. Needs no cluster, but buildah and root.
"""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from images import network
from images.build import SBOM
from images.catalogue import IMAGES, ROOT
from tests.cluster import node_images
from tests.cluster.image_roots import ImageRoot, opened

USER: Final = 10001
ENVIRONMENT: Final = "/opt/darkroom"
# Volumes and scratch folders of Linux.
WRITABLE: Final = {"/tmp", "/var/tmp", "/run/lock", "/var/lib/darkroom"}
COMPILERS: Final = re.compile(
    r"([\w-]+-)?(gcc|g\+\+|c\+\+|cc|cpp|clang|clang\+\+|tcc|ld|gold|as|make|cmake|rustc|cargo|go|nvcc)(-[\d.]+)?"
)
INSTALLERS: Final = re.compile(r"(pip[\d.]*|uv|uvx|poetry|conda)")
CREDENTIALS: Final = {
    ".netrc", ".pypirc", ".npmrc", "pip.conf", "uv.toml", ".aws", ".azure", ".boto", ".docker", ".kube", ".ssh", ".git",
    ".gitconfig", ".git-credentials", ".env", "id_rsa", "id_ed25519", "kubeconfig",
}  # fmt: skip
OF_THE_BUILD: Final = ("/src", "/dist", "/lock", "/source", "/opt/tools", "/tmp/installer")


@pytest.fixture(scope="module", params=IMAGES, ids=lambda image: image.name)
def image(request: pytest.FixtureRequest) -> Iterator[ImageRoot]:
    with opened(node_images.built(request.param)) as root:
        yield root


def site_packages(image: ImageRoot) -> Path:
    (found,) = image.file(f"{ENVIRONMENT}/lib").glob("python3*/site-packages")
    return found


def distributions(image: ImageRoot) -> set[tuple[str, str]]:
    """(name, version) of all that is installed."""
    names = (path.name.removesuffix(".dist-info") for path in site_packages(image).glob("*.dist-info"))
    return {(normal(name), version) for name, version in (name.rsplit("-", 1) for name in names)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_compiler_and_no_linker(image: ImageRoot) -> None:
    assert [one.path for one in image.entries if one.is_program and COMPILERS.fullmatch(one.name)] == []


def test_no_installer_in_the_environment_and_nothing_left_of_the_build(image: ImageRoot) -> None:
    environment = [one for one in image.entries if one.path.startswith(f"{ENVIRONMENT}/")]
    assert [one.path for one in environment if one.is_program and INSTALLERS.fullmatch(one.name)] == []
    assert {"pip", "uv"} & {name for name, _ in distributions(image)} == set()
    assert [folder for folder in OF_THE_BUILD if image.file(folder).exists()] == []


def test_no_cache(image: ImageRoot) -> None:
    """Package archives, and folders that hold them; a bundled pip of Python's own is no cache."""
    archives = [one.path for one in image.entries if re.search(r"\.(deb|whl|tar\.gz|tgz)$", one.path)]
    assert [path for path in archives if not re.search("/(python-wheels|ensurepip/_bundled)/", path)] == []
    assert [one.path for one in image.entries if one.name == ".cache"] == []
    scratch = ("/tmp/", "/var/tmp/", "/run/", "/root/.")
    files = [one.path for one in image.entries if stat.S_ISREG(one.mode) and one.path.startswith(scratch)]
    assert {path for path in files if path not in ("/root/.bashrc", "/root/.profile")} == set()


def test_no_credentials(image: ImageRoot) -> None:
    assert [one.path for one in image.entries if one.name in CREDENTIALS] == []
    keys = [one.path for one in image.entries if stat.S_ISREG(one.mode) and re.search(r"\.(pem|key|crt)$", one.path)]
    assert [path for path in keys if b"PRIVATE KEY" in image.file(path).read_bytes()] == []
    assert [one.path for one in image.entries if re.search(r"\.(p12|pfx|jks)$", one.path)] == []
    names = [pair.partition("=")[0] for pair in image.config["Env"]]
    assert [one for one in names if re.search("(^|_)(PROXY|INDEX|TOKEN|SECRET|PASSWORD)(_|$)", one.upper())] == []


def test_nothing_tells_of_the_machine_that_built_it(image: ImageRoot, tmp_path: Path) -> None:
    """Neither its package index nor its folders, in what the engine tells, in /etc and in the records of the packages."""
    secrets = network.secrets(tmp_path)
    text = secrets["network"].read_text() if "network" in secrets else ""
    hosts = {urlsplit(url).netloc.rpartition("@")[2] for url in re.findall(r"https?://[^\s']+", text)}
    words = [word.encode() for word in {str(ROOT), *hosts} - {"pypi.org", "download.pytorch.org"}]
    records = [path for path in site_packages(image).glob("*.dist-info/*") if path.is_file()]
    assert not [path.name for path in records if path.name == "direct_url.json"]
    own = [image.file(ENVIRONMENT) / "pyvenv.cfg", *image.file("/usr/share/darkroom").iterdir()]
    settings = [path for path in image.file("/etc").rglob("*") if path.is_file() and not path.is_symlink()]
    told = [path for path in (*records, *own, *settings) if any(word in path.read_bytes() for word in words)]
    assert told == []
    assert [word for word in words if word in image.about.encode()] == []


def test_every_module_has_its_bytecode(image: ImageRoot) -> None:
    """A read-only root could never write it. What has none is of another Python, and no import of this one would work."""
    paths = {one.path for one in image.entries}
    tag = site_packages(image).parent.name.replace("python", "cpython-").replace(".", "")
    sources = [path for path in paths if path.startswith(ENVIRONMENT) and path.endswith(".py")]
    assert len(sources) > 500
    bare = [path for path in sources if bytecode(path, tag) not in paths]
    check = "import sys; [compile(open(path, 'rb').read(), path, 'exec') for path in sys.argv[1:]]"
    for path in bare:
        done = image.run(f"{ENVIRONMENT}/bin/python", "-B", "-c", check, path)
        assert "SyntaxError" in done.stderr, f"{path} has no bytecode"


def bytecode(source: str, tag: str) -> str:
    folder, _, name = source.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"


def test_its_user_may_write_to_its_volumes_alone(image: ImageRoot) -> None:
    assert image.config["User"] == f"{USER}:{USER}"
    writable = {one.path for one in image.entries if one.is_writable(USER, USER)}
    assert writable - WRITABLE == set()
    assert "/tmp" in writable
    own = [one for one in image.entries if one.path.startswith(ENVIRONMENT)]
    assert {(one.uid, one.gid) for one in own} == {(0, 0)}


def test_the_bill_of_materials_lists_all_that_is_installed(image: ImageRoot) -> None:
    found = json.loads(image.file(SBOM).read_text())
    listed = {(normal(one["name"]), one["version"]) for one in (found["metadata"]["component"], *found["components"])}
    assert listed == distributions(image)
    assert sum(name.startswith("darkroom-") for name, _ in listed) >= 2
