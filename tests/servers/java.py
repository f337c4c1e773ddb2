"""Which Java and Maven this machine has."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

HOW_TO_GET_JAVA = "install OpenJDK 17 (Debian: apt install openjdk-17-jre-headless) or set JAVA_HOME to one"
HOW_TO_GET_MAVEN = "install Maven (Debian: apt install maven), needed once to fetch the server's jars"


def java_path() -> str | None:
    """Finds the java program: JAVA_HOME's if that is set, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=str(Path(home, "bin"))) if home else shutil.which("java")


@cache
def java_major(java: str) -> int | None:
    """Asks a java program for its major version; None if it gives none."""
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found[1]) if found else None


def missing_java(versions: range) -> str | None:
    """Says why no Java of these versions is to be had and how to get it; None if it is here."""
    java = java_path()
    if java is None:
        return f"java is missing: {HOW_TO_GET_JAVA}"
    major = java_major(java)
    if major not in versions:
        return f"java at {java} has version {major}, needed is {versions.start}: {HOW_TO_GET_JAVA}"
    return None


def missing_maven() -> str | None:
    """Says that Maven is not here and how to get it; None if it is here."""
    return None if shutil.which("mvn") else f"mvn is missing: {HOW_TO_GET_MAVEN}"
