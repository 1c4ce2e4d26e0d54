"""Logging of a process: one JSON object (or one line of text) per record on stderr, with the request id of the call.

`server.run` and the programs' `__main__` call `configure` once; everybody else uses the standard `logging`.
Fields given by `extra={...}` appear beside the message.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("json", "text")

request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")
"""The id of the call being served; empty outside calls. Tasks and `asyncio.to_thread` inherit it."""

_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class _Handler(logging.StreamHandler[TextIO]):
    """Marks the handler that `configure` owns, so that a second call replaces it and no one else's."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, RFC 3339), level, logger, message, request_id, extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identifier := request_id.get():
            entry["request_id"] = identifier
        entry.update(_extra_fields(record))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One line for a person: time, level, logger, message, then fields as key=value; the traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(_extra_fields(record))
        if identifier := request_id.get():
            fields.setdefault("request_id", identifier)
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        pairs = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{time} {record.levelname:<7} {record.name}: {record.getMessage()}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _extra_fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}


def configure(level: str = "info", format: str = "json") -> None:
    """Send the process's log records of this level and above to stderr. A second call replaces the first.

    level is one of LEVELS, format one of FORMATS; raises ValueError for another.
    """
    if level not in LEVELS or format not in FORMATS:
        raise ValueError(f"found level {level!r}, format {format!r}; expected one of {LEVELS} and one of {FORMATS}")
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
