"""How every process writes its log: a line of text or a JSON object for each record, on stderr (contract 6).

Text of others cannot end a line or move a terminal's cursor: what is not printable is written as an escape.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

_FIELDS = "fields"
_PLAIN = re.compile(r"[!#-<>-~]+")
"""Printable ASCII without blank, quote and equals sign."""


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


def configure(form: LogFormat) -> None:
    """Write the log to stderr in this form from now on; to be called as often as one learns more."""
    root = logging.getLogger()
    for before in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(before)
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Json() if form is LogFormat.JSON else _Text())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def say(log: logging.Logger, message: str, **named: str | float | None) -> None:
    """Write what happens very often, at INFO, without the names that are None: at half of what `log.info` costs.

    It does not look for who called it, which no format of ours shows.
    """
    if log.isEnabledFor(logging.INFO):
        record = logging.LogRecord(log.name, logging.INFO, "", 0, message, None, None)
        record.__dict__[_FIELDS] = {name: value for name, value in named.items() if value is not None}
        log.handle(record)


class _Handler(logging.StreamHandler[Any]):
    """The one that this module has put there; others' stay."""


class _Text(logging.Formatter):
    """`TIME LEVEL LOGGER: message name=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and what was raised below it."""
        message = record.getMessage()
        named = "".join(f" {name}={_quoted(value)}" for name, value in getattr(record, _FIELDS, {}).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {message}{named}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class _Json(logging.Formatter):
    """One JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        told: dict[str, Any] = {"time": _time(record), "level": record.levelname, "logger": record.name}
        told |= {"message": record.getMessage(), **getattr(record, _FIELDS, {})}
        if record.exc_info is not None:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)


def _time(record: logging.LogRecord) -> str:
    """Return the moment with its zone (RFC 3339, UTC)."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(value: str | float) -> str:
    """Return a value as it stands, or in quotes where it holds a blank, a quote or what is not printable ASCII."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
