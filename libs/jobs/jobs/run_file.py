"""Run files: one training run in YAML, from which `darkroom render` makes the Job.

    apiVersion: darkroom.dev/v1
    kind: TrainingRun
    metadata: {name, namespace}            both may be left out; the name is the run's id
    spec: {session, runId, baseModel, checkpoint, preset, recipe, execution}

A run without an id gets one from its content: the same file is the same run, a changed one another. Nothing depends on the
moment. What only the bucket knows (the session's images, the base model) the trainer or the program checks.
"""

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any, Final

from artifacts import names as store_names
from artifacts.errors import InvalidName

from jobs import execution_file, recipe_defaults, recipe_file, yaml_document
from jobs import recipe as recipes
from jobs.errors import FieldsInvalid
from jobs.execution import Execution
from jobs.fields import Fields, shown
from jobs.run_spec import RunSpec

API_VERSION: Final = "darkroom.dev/v1"
KIND: Final = "TrainingRun"
FIELDS: Final = ("session", "runId", "baseModel", "checkpoint", "preset", "recipe", "execution")
_NAMESPACE: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_RUN_ID: Final = r"[a-z0-9][a-z0-9-]{0,39}"
_RUN_ID_RULE: Final = "1 to 40 lower-case letters, digits and hyphens, starting with a letter or digit"
# Fields of an execution that were added later.
_LATER_FIELDS: Final = ("run_as_user", "run_as_group", "fs_group", "host_users", "device")
_BASE_MODEL: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def read_run(text: str, source: str) -> tuple[RunSpec, Execution]:
    """The run of a file and its execution. source: the file's name, for messages. Raises FileInvalid with every mistake."""
    document = yaml_document.load(text, source)
    problems: list[tuple[str, str]] = []
    file = Fields(document.value, "", ("apiVersion", "kind", "metadata", "spec"), problems)
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if file.value(name) != expected:
            file.problem(name, f"is {shown(file.value(name))}: expected {expected}")
    about = file.nested("metadata", ("name", "namespace"))
    fields = file.nested("spec", FIELDS)
    execution = _execution(about, fields, problems)
    spec = _spec(about, fields, execution, problems)
    if problems:
        raise document.error(problems)
    return spec, execution


def comment_of(text: str) -> str:
    """The comment at the top of a file, line by line as it is; "" for none."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(f"{line.rstrip()}\n")
    return "".join(lines)


def _execution(about: Fields, fields: Fields, problems: list[tuple[str, str]]) -> Execution:
    execution = execution_file.execution_of(fields.value("execution"), fields.at("execution"), problems)
    namespace = about.text("namespace", pattern=_NAMESPACE, expected="the name of a namespace")
    if namespace and execution.namespace not in ("", namespace):
        about.problem(
            "namespace", f"is {namespace!r}, but spec.execution.namespace is {execution.namespace!r}: keep one"
        )
    return replace(execution, namespace=namespace or execution.namespace)


def _spec(about: Fields, fields: Fields, execution: Execution, problems: list[tuple[str, str]]) -> RunSpec:
    recipe_fields = recipe_file.fields_of(fields.value("recipe"), fields.at("recipe"), problems)
    session = _session(fields)
    base_model = _once(fields, recipe_fields, "baseModel", _base_model(fields), _base_model(recipe_fields))
    if not base_model and not any(part.has("baseModel") for part in (fields, recipe_fields)):
        fields.missing("baseModel", 'the name of a folder below "models/" in the bucket')
    preset = _once(fields, recipe_fields, "preset", recipe_file.preset_of(fields), recipe_file.preset_of(recipe_fields))
    if not recipe_fields.value("resolutionPx"):
        recipe_fields.missing("resolutionPx", "the edge of the training square, which for Stable Diffusion 1.5 is 512")
    known = len(problems)
    recipe = replace(recipe_defaults.completed(recipe_file.given_of(recipe_fields), preset), base_model=base_model)
    if len(problems) == known:
        _check(recipe, execution, recipe_fields)
    source = f"models/{base_model}"
    content = {"recipe": recipes.to_json(recipe, source, _checkpoint(fields)), "execution": _content(execution)}
    digest = hashlib.sha256(json.dumps([session, content], sort_keys=True).encode()).hexdigest()
    run_id = _run_id(about, fields) or f"r-{digest[:12]}"
    return RunSpec(
        session=session,
        run_id=run_id,
        recipe=recipe,
        base_model_source=source,
        # The suffix keeps apart what two names joined by "-" cannot.
        checkpoint=_checkpoint(fields) or f"{session}-{run_id}-{digest[12:18]}",
    )


def _check(recipe: recipes.Recipe, execution: Execution, fields: Fields) -> None:
    """The rules of the service; its paths begin with the recipe."""
    if recipe.text_encoder.steps + recipe.unet.steps == 0:
        fields.problem("", "has no steps: give text_encoder.steps or unet.steps")
    try:
        execution.check_recipe(recipe)
    except FieldsInvalid as error:
        for path, text in error.problems:
            head, *rest = path.removeprefix("recipe.").split(".")
            fields.problem(".".join([_camel(head), *map(_camel, rest)]), text)


def _session(fields: Fields) -> str:
    if not fields.has("session"):
        fields.missing("session", "the name of a session in the bucket")
    session = fields.text("session", "missing")
    try:
        return store_names.session_name(session)
    except InvalidName:
        fields.problem("session", f"is {shown(session)}: expected {store_names.SESSION_RULE}")
        return "missing"


def _run_id(about: Fields, fields: Fields) -> str:
    given = fields.text("runId", pattern=_RUN_ID, expected=_RUN_ID_RULE)
    name = about.text("name", pattern=_RUN_ID, expected=_RUN_ID_RULE)
    if given and name and given != name:
        fields.problem("runId", f"is {given!r}, but metadata.name is {name!r}: both are the run's id, keep one")
    return given or name


def _content(execution: Execution) -> dict[str, Any]:
    """What of the execution tells runs apart. A field that Darkroom has got since tells nothing where it has its default:
    the same file stays the same run after an upgrade.
    """
    default = Execution()
    return {
        name: value
        for name, value in asdict(execution).items()
        if name not in _LATER_FIELDS or value != getattr(default, name)
    }


def _checkpoint(fields: Fields) -> str:
    checkpoint = fields.text("checkpoint")
    try:
        return store_names.checkpoint_id(checkpoint) if checkpoint else ""
    except InvalidName:
        fields.problem("checkpoint", f"is {shown(checkpoint)}: expected {store_names.CHECKPOINT_RULE}")
        return ""


def _base_model(fields: Fields) -> str:
    expected = 'the name of a folder below "models/" in the bucket'
    return fields.text("baseModel", pattern=_BASE_MODEL, expected=expected)


def _once(fields: Fields, recipe: Fields, name: str, first: str, second: str) -> str:
    """A value that may stand in the spec or in its recipe."""
    if first and second and first != second:
        recipe.problem(name, f"is {second!r}, but {fields.at(name)} is {first!r}: keep one")
    return first or second


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
