"""The cql/NNN_*.cql files: finding them, filling them in, splitting them into statements."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import attrs

from voicelog_sink.stores.base import StoreMisconfigured

_NAME = re.compile(r"(\d{3})_(\w+)\.cql")
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@attrs.frozen
class Migration:
    """One file: `version` is its number, `name` the rest of its name, `text` what it says, placeholders and all."""

    version: int
    name: str
    text: str

    @property
    def title(self) -> str:
        """The file's name without its ending."""
        return f"{self.version:03d}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of its text: tells that it was changed after it was applied."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, values: Mapping[str, str]) -> list[str]:
        """Return its statements, {placeholders} replaced; raises KeyError for one without a value."""
        filled = _PLACEHOLDER.sub(lambda match: values[match[1]], _COMMENT.sub("", self.text))
        return [part.strip() for part in filled.split(";") if part.strip()]


def migrations() -> list[Migration]:
    """Return every file in order, from the installed package or the checkout; raises StoreMisconfigured for none."""
    found = [
        Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8"))
        for entry in _folder().iterdir()
        if (match := _NAME.fullmatch(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def _folder() -> Traversable:
    packaged = files("voicelog_sink") / "cql"
    checkout = Path(__file__).parents[3] / "cql"
    for folder in (packaged, checkout):
        if folder.is_dir():
            return folder
    message = f"the CQL schema is neither in {packaged} nor in {checkout}; install voicelog anew"
    raise StoreMisconfigured(message)
