"""`darkroom bucket`: makes a bucket ready for the services. The chart runs it after each installation and upgrade."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from artifacts import lifecycle
from artifacts.config import StoreConfig
from artifacts.errors import ArtifactError, StoreUnavailable
from artifacts.store import ObjectStore
from chassis import config
from chassis.config import ConfigError

from darkroom_cli.model_folders import ModelFolder, model_folders
from darkroom_cli.output import JsonFlag, UsageProblem, console, print_json, progress_bar, readable_errors

app = typer.Typer(no_args_is_help=True, help="Make a bucket ready. Which one: DARKROOM_S3_ENDPOINT and its companions.")

UPLOAD_DAYS = 1
_CHUNK_BYTES = 1024 * 1024
_PAUSE_SECONDS = 1.0
_PREFIXES = {"base model": "models", "control net": "controlnets"}


@app.callback()
def _group() -> None:
    """Keeps `setup` a word of its own although it is the only command."""


@app.command()
def setup(
    models: Annotated[
        Path | None,
        typer.Option(help="A folder whose base models and ControlNets are uploaded.", exists=True, file_okay=False),
    ] = None,
    set_lifecycle: Annotated[
        bool, typer.Option("--lifecycle/--no-lifecycle", help="Whether to set the rule for incomplete uploads.")
    ] = True,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a store that does not answer.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Make the bucket, its rule for incomplete uploads and its first models. Safe to repeat: what is there stays."""
    with readable_errors(), _store_errors():
        found = [model for model in model_folders(models) if model.kind in _PREFIXES] if models else []
        store = ObjectStore(config.read(StoreConfig))
        _patiently(store.ensure_bucket, wait)
        report: dict[str, Any] = {"bucket": store.config.bucket, "endpoint": store.config.url}
        report["lifecycle"] = _lifecycle(store.config) if set_lifecycle else "left alone"
        report["models"] = _upload(store, found)
        if as_json:
            print_json(report)
            return
        print(f"{store.config.place} is ready; incomplete uploads: {report['lifecycle']}")
        for model in report["models"]:
            print(f"{model['state']:<8}  {model['prefix']}")


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Store and configuration say themselves what was wrong and what to do."""
    try:
        yield
    except (ArtifactError, ConfigError) as error:
        raise UsageProblem(str(error)) from error


def _patiently(step: Callable[[], None], wait_seconds: float) -> None:
    """Repeat a step as long as the store does not answer and there is time."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return step()
        except StoreUnavailable as error:
            if time.monotonic() >= deadline:
                raise
            console.print(f"waiting: {error.detail}", markup=False, soft_wrap=True)
            time.sleep(_PAUSE_SECONDS)


def _lifecycle(where: StoreConfig) -> str:
    """Set the rule and say what became of it. A store that does not know it cleans up by itself, or never."""
    try:
        changed = lifecycle.abort_incomplete_uploads(where, UPLOAD_DAYS)
    except lifecycle.LifecycleUnsupported as error:
        console.print(f"note: {error}", markup=False, soft_wrap=True)
        return "not supported"
    return "rule set" if changed else "rule present"


def _upload(store: ObjectStore, models: list[ModelFolder]) -> list[dict[str, str]]:
    """Upload the models that are not there; one line of the report for each."""
    lines = []
    with progress_bar() as bar:
        task = bar.add_task("uploading", total=sum(len(model.files) for model in models), note="")
        for model in models:
            prefix = f"{_PREFIXES[model.kind]}/{model.name}/"
            # The last file of a model is the one by which the services find it: half an upload is no model.
            present = store.exists(prefix + model.files[-1])
            for file in model.files:
                bar.update(task, note=model.name)
                if not present:
                    _upload_file(store, prefix + file, model.path / file)
                bar.advance(task)
            lines.append({"name": model.name, "prefix": prefix, "state": "present" if present else "uploaded"})
    return lines


def _upload_file(store: ObjectStore, key: str, path: Path) -> None:
    with path.open("rb") as file, store.writer(key) as target:
        while chunk := file.read(_CHUNK_BYTES):
            target.write(chunk)
