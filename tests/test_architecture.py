"""The structure that the design promises, read from the code's own imports."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
SINK_MAY_IMPORT = {"events", "wire", "errors", "settings"}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return every module that a file imports, at any depth of it, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(found)


def files_importing(package: str, module: str) -> set[str]:
    """Return the files of a package, relative to it, that import a module or a part of it."""
    root = SRC / package
    return {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(name == module or name.startswith(module + ".") for name in imports_of(path))
    }


def test_library_never_imports_the_sink() -> None:
    assert files_importing("voicelog", "voicelog_sink") == set()


def test_sink_imports_only_the_contracts_of_the_library() -> None:
    allowed = {"voicelog", *(f"voicelog.{name}" for name in SINK_MAY_IMPORT)}
    for path in (SRC / "voicelog_sink").rglob("*.py"):
        modules = {name for name in imports_of(path) if name.split(".")[0] == "voicelog"}
        wrong = {name for name in modules if ".".join(name.split(".")[:2]) not in allowed | {"voicelog.__version__"}}
        assert not wrong, f"{path.name} imports {wrong}"


@pytest.mark.parametrize(
    ("package", "module", "files"),
    [
        ("voicelog", "confluent_kafka", {"kafka.py"}),
        ("voicelog_sink", "confluent_kafka.Consumer", {"consumer.py"}),
        ("voicelog_sink", "cassandra", {"stores/cql.py"}),
        ("voicelog_sink", "sqlite3", {"stores/sqlite.py"}),
        ("voicelog_sink", "ddsketch", {"sketch.py"}),
        ("voicelog_sink", "scipy", {"interval.py"}),
        ("voicelog_sink", "pyarrow", {"export_parquet.py"}),
    ],
)
def test_one_file_holds_each_driver(package: str, module: str, files: set[str]) -> None:
    assert files_importing(package, module) == files
