"""Brings a server's jars from Maven into a cache, once."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
FETCH_TIMEOUT_S = 240


class FetchError(RuntimeError):
    """Maven did not bring the jars."""


@dataclass(frozen=True)
class Distribution:
    """A server by its Maven coordinates, each `group:artifact:version`."""

    name: str
    version: str
    artifacts: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """Where the cache has it, or would."""
        return cache_directory() / f"{self.name}-{self.version}"

    @property
    def is_fetched(self) -> bool:
        """Whether the cache has exactly these artifacts, complete."""
        pom = self.directory / "pom.xml"
        return pom.is_file() and pom.read_text() == self.pom()

    def pom(self) -> str:
        """Writes the Maven project that depends on nothing but the server."""
        dependencies = "\n".join(f"    {_dependency(artifact)}" for artifact in self.artifacts)
        return POM.format(name=escape(self.name), version=escape(self.version), dependencies=dependencies)


def cache_directory() -> Path:
    """Names the directory of all fetched servers: VOICELOG_TEST_CACHE, or .cache/servers."""
    given = os.environ.get("VOICELOG_TEST_CACHE")
    return Path(given).resolve() if given else Path(__file__).resolve().parents[2] / ".cache" / "servers"


def fetch(distribution: Distribution) -> Path:
    """Gives the directory of the server's jars, fetching it if the cache does not have it."""
    target = distribution.directory
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock")):
        if not distribution.is_fetched:
            _bring(distribution, target)
    return target / "lib"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bring(distribution: Distribution, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as parent:
        fresh = Path(parent, "fresh")
        fresh.mkdir()
        pom = fresh / "pom.xml"
        pom.write_text(distribution.pom())
        _run_maven(distribution, pom, fresh / "lib")
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)


def _run_maven(distribution: Distribution, pom: Path, lib: Path) -> None:
    command = [
        "mvn",
        "-B",
        "-q",
        "-f",
        str(pom),
        f"{PLUGIN}:copy-dependencies",
        f"-DoutputDirectory={lib}",
        "-DincludeScope=runtime",
    ]
    what = f"fetching {distribution.name} {distribution.version} with Maven into {distribution.directory}"
    remedy = "check that Maven reaches its repository (~/.m2/settings.xml), then run again"
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{what} took more than {FETCH_TIMEOUT_S} s: {remedy}") from None
    if run.returncode:
        tail = "\n".join(run.stdout.splitlines()[-20:])
        raise FetchError(f"{what} failed with status {run.returncode}: {remedy}; its last output:\n{tail}")


def _dependency(artifact: str) -> str:
    group, name, version = map(escape, artifact.split(":"))
    return (
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{version}</version></dependency>"
    )


POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>voicelog.tests</groupId>
  <artifactId>{name}</artifactId>
  <version>{version}</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
