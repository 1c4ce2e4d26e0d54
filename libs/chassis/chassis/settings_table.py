"""The settings of a program as a table for `--help`, made from the configuration class itself."""

from chassis import values
from chassis.config import Setting, settings

_HEADINGS = ("variable", "value", "default", "meaning")


def as_text(cls: type) -> str:
    """The table, columns aligned."""
    rows = [_HEADINGS, *_rows(cls)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
    lines = ("  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows)
    return "\n".join(lines)


def _rows(cls: type) -> list[tuple[str, str, str, str]]:
    return [
        (setting.env, _describe_value(setting), _describe_default(setting), _describe_meaning(setting))
        for setting in settings(cls)
    ]


def _describe_value(setting: Setting) -> str:
    if setting.choices:
        return " or ".join(setting.choices)
    limits = values.describe_limits(setting.minimum, setting.maximum)
    kind = values.describe_type(setting.type)
    if limits:
        return limits.replace("a number", kind, 1)
    return f"{kind}, secret" if setting.secret else kind


def _describe_default(setting: Setting) -> str:
    if setting.required:
        return "(required)"
    if setting.secret and setting.default:
        return "(secret)"
    return values.render(setting.default) or "(empty)"


def _describe_meaning(setting: Setting) -> str:
    return f"{setting.doc}; or {setting.file_env}, a file that holds it" if setting.by_file else setting.doc
