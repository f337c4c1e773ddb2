"""What is importable from voicelog is public, listed and documented."""

from __future__ import annotations

import inspect
import types

import voicelog


def test_everything_without_an_underscore_is_in_all_and_sorted() -> None:
    names = [
        name
        for name, member in vars(voicelog).items()
        if not name.startswith("_") and not isinstance(member, types.ModuleType) and name not in ("annotations",)
        if getattr(member, "__module__", "").startswith("voicelog")
    ]
    assert sorted(names) == sorted(voicelog.__all__)
    assert voicelog.__all__ == sorted(voicelog.__all__)


def test_everything_public_has_a_docstring() -> None:
    for name in voicelog.__all__:
        member = getattr(voicelog, name)
        assert member.__doc__, name
        for method, function in inspect.getmembers(member, inspect.isfunction):
            if function.__module__.startswith("voicelog") and not method.startswith("_"):
                assert inspect.getdoc(function), f"{name}.{method}"


def test_the_version_is_the_packages() -> None:
    assert voicelog.__version__
