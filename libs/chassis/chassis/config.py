"""A program's whole configuration: one frozen dataclass, read once from the environment.

`__main__` calls `read` and passes the result on; nothing else looks at the environment.
A setting is a dataclass field whose metadata names its variable, so a library can offer settings without importing this
module. How one value is written is left to `values.py`.

A secret may lie in a file, as Kubernetes and Docker mount them: DARKROOM_TOKEN_FILE names the file that holds DARKROOM_TOKEN.
"""

import dataclasses
import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

from chassis import logs, values

C = TypeVar("C")


class ConfigError(Exception):
    """The configuration is wrong.

    Attributes: problems, one sentence for each mistake, all mistakes at once.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"{len(problems)} {noun} in the configuration:\n" + "\n".join(f"  - {p}" for p in problems))


@dataclass(frozen=True)
class Setting:
    """One variable of the environment, as `settings` lists it. `default` is MISSING if the variable is required.

    by_file: the variable `file_env` may name a file that holds the value.
    """

    env: str
    field: str
    type: Any
    default: Any
    doc: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    secret: bool
    by_file: bool

    @property
    def file_env(self) -> str:
        """The variable that names a file instead."""
        return f"{self.env}_FILE"

    @property
    def required(self) -> bool:
        """Whether the program cannot start without the variable."""
        return self.default is MISSING


def setting(
    env: str,
    doc: str,
    *,
    default: Any = MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    secret: bool = False,
) -> Any:
    """Declare a dataclass field that is read from the variable `env`.

    minimum and maximum are inclusive. A field without default is required. The value of a secret appears neither in
    error messages nor in the dataclass's repr, and may lie in a file.
    """
    metadata = {"env": env, "doc": doc, "minimum": minimum, "maximum": maximum, "choices": choices, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def settings(cls: type) -> Iterator[Setting]:
    """List the settings of a configuration class in order of declaration, nested classes included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if "env" in field.metadata:
            yield _as_setting(field, hint)
        elif (part := _part(hint)) is not None:
            yield from settings(part) if part is hint else map(_if_any, settings(part))


def read(cls: type[C], environ: Mapping[str, str] | None = None) -> C:
    """Build the configuration from the environment (default: that of the process).

    A variable that is set to nothing counts as not set. The value of a secret, and of a field whose metadata says
    "by_file", may instead be in the file that its variable with _FILE at the end names; newlines at its end do not count. Fields that are dataclasses are read the same way; one declared
    as `X | None` is None unless at least one variable of X is set. For rules
    that a single setting cannot state, a class may have a generator method `problems() -> Iterator[str]`, or raise
    ValueError in `__post_init__`; their texts must not hold secrets. Raises ConfigError with every mistake.
    """
    problems: list[str] = []
    config = _read(cls, os.environ if environ is None else environ, problems)
    if problems or config is None:
        raise ConfigError(tuple(problems))
    return config


def _read(cls: type[C], environ: Mapping[str, str], problems: list[str]) -> C | None:
    """Build one dataclass, adding what is wrong to `problems`; None if a field has neither a value nor a default."""
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    missing: set[str] = set()
    for field in dataclasses.fields(typing.cast(Any, cls)):
        hint = hints[field.name]
        if "env" in field.metadata:
            value = _read_setting(_as_setting(field, hint), environ, problems)
        elif (part := _part(hint)) is None:
            continue
        elif part is not hint and not any(_is_given(one, environ) for one in settings(part)):
            value = None
        else:
            value = _read(part, environ, problems)
            value = MISSING if value is None else value
        if value is MISSING:
            missing.add(field.name)
        else:
            arguments[field.name] = value
    if missing:
        problems.extend(_problems_of_part(cls, arguments, missing))
        return None
    try:
        config = cls(**arguments)
    except ValueError as error:
        problems.append(str(error))
        return None
    problems.extend(getattr(config, "problems", tuple)())
    return config


def _part(hint: Any) -> type | None:
    """The configuration class of a field `X` or `X | None`; None if it is no such field."""
    classes = [one for one in (hint, *typing.get_args(hint)) if isinstance(one, type) and dataclasses.is_dataclass(one)]
    return classes[0] if classes else None


def _if_any(one: Setting) -> Setting:
    """A setting of a part that may be left out as a whole."""
    if not one.required:
        return one
    return dataclasses.replace(one, default="", doc=f"{one.doc}; required once one of its group is set")


def _problems_of_part(cls: type, arguments: Mapping[str, Any], missing: set[str]) -> Iterator[str]:
    """What the class's own rules say of the fields that are there, up to the first rule that needs a missing one."""
    part: Any = object.__new__(cls)
    for name, value in arguments.items():
        object.__setattr__(part, name, value)
    try:
        yield from getattr(part, "problems", tuple)()
    except AttributeError as error:
        if error.obj is not part or error.name not in missing:
            raise


def _read_setting(setting: Setting, environ: Mapping[str, str], problems: list[str]) -> Any:
    """The value of one variable. After a mistake the default stands in, so that the reading can go on to the next."""
    text = environ.get(setting.env, "")
    if setting.by_file and (path := environ.get(setting.file_env)):
        if text:
            problems.append(f"{setting.env} and {setting.file_env} are both set: keep one of them")
            return setting.default
        try:
            text = _content(Path(path))
        except (OSError, ValueError) as error:
            problems.append(f"{setting.file_env} is {path!r}: {error}")
            return setting.default
    if not text:
        if setting.required:
            problems.append(f"{setting.env} is not set: {setting.doc}")
        return setting.default
    try:
        value = values.parse(text, setting.type)
        values.check(value, setting.minimum, setting.maximum, setting.choices)
    except values.ValueInvalid as error:
        found = "a value that is not shown because it is secret" if setting.secret else repr(text)
        problems.append(f"{setting.env} is {found}: expected {error.expected}")
        return setting.default
    return value


def _is_given(setting: Setting, environ: Mapping[str, str]) -> bool:
    return bool(environ.get(setting.env) or (setting.by_file and environ.get(setting.file_env)))


def _content(path: Path) -> str:
    """The text of a file without the newlines at its end. Raises OSError or ValueError, both with a text for the problem."""
    try:
        text = path.read_text("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("expected a file of UTF-8 text") from None
    except OSError as error:
        raise OSError(f"the file cannot be read: {error.strerror}") from error
    if not text:
        raise ValueError("the file is empty: expected the value in it")
    return text


def _as_setting(field: "dataclasses.Field[Any]", hint: Any) -> Setting:
    metadata = field.metadata
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return Setting(
        env=metadata["env"],
        field=field.name,
        type=hint,
        default=default,
        doc=metadata.get("doc", ""),
        minimum=metadata.get("minimum"),
        maximum=metadata.get("maximum"),
        choices=tuple(metadata.get("choices") or ()),
        secret=metadata.get("secret", False),
        by_file=metadata.get("by_file", metadata.get("secret", False)),
    )


@dataclass(frozen=True)
class ServerConfig:
    """How a service listens, whom it lets in and how it stops."""

    host: str = setting("DARKROOM_HOST", "address to listen on", default="127.0.0.1")
    port: int = setting("DARKROOM_PORT", "gRPC port; 0 takes any free one", default=0, minimum=0, maximum=65535)
    metrics_port: int = setting(
        "DARKROOM_METRICS_PORT", "port of GET /metrics; 0 takes any free one", default=0, minimum=0, maximum=65535
    )
    auth: bool = setting("DARKROOM_AUTH", "ask every call except health for the token", default=True)
    token: str = setting(
        "DARKROOM_TOKEN", "the token that callers present; required while DARKROOM_AUTH is on", default="", secret=True
    )
    tls_certificate_file: str = setting(
        "DARKROOM_TLS_CERTIFICATE_FILE", "PEM certificate chain; with the key it switches TLS on", default=""
    )
    tls_key_file: str = setting("DARKROOM_TLS_KEY_FILE", "PEM private key of the certificate", default="")
    max_message_bytes: int = setting(
        "DARKROOM_MAX_MESSAGE_BYTES",
        "largest message, in and out",
        default=64 * 1024**2,
        minimum=1024,
        maximum=1024**3,
    )
    drain_seconds: float = setting(
        "DARKROOM_DRAIN_SECONDS", "how long calls may go on after SIGTERM", default=20.0, minimum=0, maximum=3600
    )
    reflection: bool = setting("DARKROOM_REFLECTION", "describe the services to clients like grpcurl", default=True)
    log_level: str = setting("DARKROOM_LOG_LEVEL", "least level that is logged", default="info", choices=logs.LEVELS)
    log_format: str = setting("DARKROOM_LOG_FORMAT", "form of a log record", default="json", choices=logs.FORMATS)
    endpoint_file: str = setting(
        "DARKROOM_ENDPOINT_FILE",
        'file that gets {"grpc": "host:port", "metrics": "host:port"} once the ports are open',
        default="",
    )

    def problems(self) -> Iterator[str]:
        """The rules that a single type cannot state: a usable token while auth is on, TLS files only as a pair."""
        if self.auth and not self.token:
            yield "DARKROOM_TOKEN is not set: needed while DARKROOM_AUTH is on; set it, or set DARKROOM_AUTH=off"
        if self.token != self.token.strip() or not (self.token.isascii() and self.token.isprintable()):
            # No header carries it, so every caller would be refused. Mostly a newline from the file of a secret.
            yield "DARKROOM_TOKEN is not printable ASCII without white space around it, which headers can carry"
        if bool(self.tls_certificate_file) != bool(self.tls_key_file):
            given, lacking = "DARKROOM_TLS_CERTIFICATE_FILE", "DARKROOM_TLS_KEY_FILE"
            if self.tls_key_file:
                given, lacking = lacking, given
            yield f"{lacking} is not set although {given} is: TLS needs both"
