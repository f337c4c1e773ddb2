"""The version of the installed distribution."""

from __future__ import annotations

from importlib import metadata


def sink_version() -> str:
    """Return the version, or `unknown` when the sources run without being installed."""
    try:
        return metadata.version("voicelog")
    except metadata.PackageNotFoundError:
        return "unknown"
