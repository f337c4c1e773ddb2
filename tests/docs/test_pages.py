"""What the pages show runs, and where they point exists."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_first_page_lists_every_other_one() -> None:
    index = ROOT / "docs/README.md"
    links = re.findall(r"\]\(([^)#\s]+)", index.read_text(encoding="utf-8"))
    assert sorted((ROOT / "docs").rglob("*.md")) == sorted({index, *(index.parent / link for link in links)})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_is_python(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_tutorials_bot_records_a_call_and_the_commands_show_it(tmp_path: Path) -> None:
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    (bot,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "bot.py").write_text(bot, encoding="utf-8")

    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}

    def sink(*args: str) -> str:
        command = [sys.executable, "-m", "voicelog_sink", *args]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sink("dev", "--http", "off", "--", sys.executable, "bot.py")
    assert "front-desk" in sink("sessions")
    shown = sink("show", "last")
    assert "How late are you open?" in shown
    assert "We are open until nine." in shown
    assert "complete" in shown
    assert "llm" in sink("stats")
