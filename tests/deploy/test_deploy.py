"""What can be known of deploy/ without a container engine: form, agreement with the settings, and the image's steps."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from tests.conftest_packages import ROOT, without_own_paths

from voicelog.settings import BY_NAME, NOT_SETTINGS, parse

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILE = DEPLOY / "Dockerfile"
OWN_IMAGE = "voicelog-sink:local"
YAMLLINT = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
Services = dict[str, dict[str, Any]]
Step = tuple[str, str]


def missing(tool: str) -> None:
    """Skips the test because `tool` is not installed; in CI it fails."""
    message = f"{tool} is not installed: pip install 'voicelog[dev]'"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def run_tool(tool: str, *args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).parent / tool
    path = str(beside) if beside.exists() else shutil.which(tool)
    if path is None:
        missing(tool)
    return subprocess.run([str(path), *args], cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        missing("pyyaml")
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    return dict(yaml.safe_load(text))


@pytest.fixture
def services(compose: dict[str, Any]) -> Services:
    return dict(compose["services"])


@pytest.fixture(scope="module")
def stages() -> list[list[Step]]:
    """The Dockerfile's stages, each a list of (instruction, arguments)."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    steps = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]
    starts = [index for index, (word, _) in enumerate(steps) if word == "FROM"]
    return [steps[a:b] for a, b in zip(starts, [*starts[1:], len(steps)], strict=True)]


def arguments(stage: list[Step], instruction: str) -> list[str]:
    return [rest for word, rest in stage if word == instruction]


def flag(service: dict[str, Any], name: str) -> str:
    return str(next(part.partition("=")[2] for part in service["command"] if part.startswith(f"--{name}=")))


def megabytes(size: str) -> int:
    return int(size[:-1]) * {"m": 1, "g": 1024}[size[-1].lower()]


def one_shot(service: dict[str, Any]) -> bool:
    return bool(service["restart"] == "no")


def test_compose_file_is_as_the_compose_specification_wants_it() -> None:
    assert_clean(run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)))


def test_podman_compose_reads_every_service() -> None:
    done = run_tool("podman-compose", "--dry-run", "--profile", "cli", "-f", str(COMPOSE), "config", "--services")
    assert_clean(done)
    assert sorted(done.stdout.split()) == ["cli", "init", "redpanda", "scylla", "sink"]


def test_compose_file_passes_yamllint() -> None:
    assert_clean(run_tool("yamllint", "--strict", "-d", YAMLLINT, str(COMPOSE)))


def test_dockerfile_passes_hadolint() -> None:
    assert_clean(run_tool("hadolint", "--failure-threshold", "style", str(DOCKERFILE)))


def test_every_service_has_a_health_check_or_is_one_shot(services: Services) -> None:
    for name, service in services.items():
        check = service["healthcheck"]
        assert check == {"disable": True} if one_shot(service) else {"test", "start_period"} <= set(check), name
    assert [name for name, service in services.items() if one_shot(service)] == ["init", "cli"]


def test_every_service_is_limited_in_processor_and_memory(services: Services) -> None:
    assert [name for name, service in services.items() if not {"cpus", "mem_limit"} <= set(service)] == []


def test_servers_take_less_memory_than_their_container_has(services: Services) -> None:
    for name in ("redpanda", "scylla"):
        assert megabytes(flag(services[name], "memory")) < megabytes(services[name]["mem_limit"]), name


def test_every_server_keeps_its_data_in_a_volume_that_is_declared(compose: dict[str, Any], services: Services) -> None:
    kept = {name: service["volumes"] for name, service in services.items() if service["image"] != OWN_IMAGE}
    named = {name: volume.partition(":")[0] for name, (volume,) in kept.items()}
    assert named == {"redpanda": "redpanda", "scylla": "scylla"}
    assert set(named.values()) == set(compose["volumes"])


def test_every_foreign_image_is_pinned_to_a_release_and_names_no_registry(services: Services) -> None:
    images = {service["image"] for service in services.values()} - {OWN_IMAGE}
    assert [image for image in images if not re.fullmatch(r"\w+/\w+:v?\d+\.\d+\.\d+", image)] == []


def test_every_published_port_is_the_loopbacks_only(services: Services) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {
        "redpanda": ["127.0.0.1:19092:19092"], "scylla": ["127.0.0.1:9042:9042"], "sink": ["127.0.0.1:8080:8080"],
    }  # fmt: skip


def test_broker_advertises_every_listener_and_the_outer_one_as_published(services: Services) -> None:
    redpanda = services["redpanda"]
    advertised = dict(part.split("://") for part in flag(redpanda, "advertise-kafka-addr").split(","))
    listeners = dict(part.split("://") for part in flag(redpanda, "kafka-addr").split(","))
    assert advertised == {"internal": "redpanda:9092", "external": "127.0.0.1:19092"}
    assert listeners == {"internal": "0.0.0.0:9092", "external": "0.0.0.0:19092"}


def test_broker_acknowledges_what_is_on_its_disk_and_leaves_topics_to_init(services: Services) -> None:
    command = services["redpanda"]["command"]
    assert "--unsafe-bypass-fsync=false" in command
    assigned = {command[index + 1] for index, part in enumerate(command) if part == "--set"}
    assert assigned == {"redpanda.write_caching_default=false", "redpanda.auto_create_topics_enabled=false"}


def test_sink_and_commands_go_to_the_servers_of_the_file(services: Services) -> None:
    inner = flag(services["redpanda"], "advertise-kafka-addr").split(",")[0]
    for name in ("init", "sink", "cli"):
        environment = services[name]["environment"]
        assert f"internal://{environment['VOICELOG_BROKERS']}" == inner
        assert urlsplit(environment["VOICELOG_STORE"]).hostname == flag(services["scylla"], "broadcast-rpc-address")
        assert urlsplit(f"//{environment['VOICELOG_HTTP']}").port == 8080


def test_sink_starts_after_topics_and_schema_are_made(services: Services) -> None:
    assert services["sink"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert services["init"]["command"] == ["init"]
    assert services["init"]["depends_on"] == {name: {"condition": "service_healthy"} for name in ("redpanda", "scylla")}


def settings_in(services: Services, stages: list[list[Step]]) -> Iterator[tuple[str, str]]:
    for service in services.values():
        yield from service.get("environment", {}).items()
    for line in arguments(stages[-1], "ENV"):
        yield from re.findall(r"(\S+?)=(\S+)", line)


def test_every_voicelog_variable_is_a_setting_and_its_value_is_taken(
    services: Services, stages: list[list[Step]]
) -> None:
    given = {(name, value) for name, value in settings_in(services, stages) if name.startswith("VOICELOG_")}
    assert len(given) > 8
    for name, value in given:
        setting = name.removeprefix("VOICELOG_").lower()
        assert setting in BY_NAME, name
        if value:
            parse(setting, value)


def test_readme_names_no_variable_that_is_no_setting() -> None:
    names = set(re.findall(r"\bVOICELOG_[A-Z_]+", (DEPLOY / "README.md").read_text()))
    assert {"VOICELOG_TEST_BROKERS", "VOICELOG_TEST_CQL"} <= names
    ours = {name for name in names if not name.startswith(NOT_SETTINGS)}
    assert ours - {row.env for row in BY_NAME.values()} == set()


def copied(stage: list[Step]) -> Iterator[tuple[str, str]]:
    for line in arguments(stage, "COPY"):
        *sources, target = line.split()
        yield from ((source, target) for source in sources)


def test_every_path_that_the_image_copies_is_there_and_reaches_the_builder(stages: list[list[Step]]) -> None:
    let_in = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    sources = {source for source, _ in copied(stages[0])}
    assert sources == let_in
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_image_runs_as_a_numbered_user_that_is_not_root(stages: list[list[Step]]) -> None:
    user, group = arguments(stages[-1], "USER")[-1].split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_image_takes_only_the_built_environment_and_starts_the_sink(stages: list[list[Step]]) -> None:
    final = stages[-1]
    assert arguments(final, "COPY") == ["--from=build /opt/voicelog /opt/voicelog"]
    assert arguments(final, "ENTRYPOINT") == ['["voicelog-sink"]']
    assert arguments(final, "CMD") == ['["run"]']
    assert arguments(final, "STOPSIGNAL") == ["SIGTERM"]
    assert len(re.findall(r"org\.opencontainers\.image\.\w+=", arguments(final, "LABEL")[0])) == 5


def health_command(stage: list[Step]) -> list[str]:
    return list(json.loads(arguments(stage, "HEALTHCHECK")[0].partition("CMD ")[2]))


def test_image_and_compose_file_check_health_alike(services: Services, stages: list[list[Step]]) -> None:
    assert services["sink"]["healthcheck"]["test"] == ["CMD", *health_command(stages[-1])]


class Ready(BaseHTTPRequestHandler):
    """Answers /ready with the server's status."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/ready" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


def health_exit(stages: list[list[Step]], port: int) -> int:
    python, *rest = health_command(stages[-1])
    assert python == "python"
    command = [sys.executable, *(part.replace(":8080/", f":{port}/") for part in rest)]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=30).returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_health_check_holds_for_a_ready_sink_only(stages: list[list[Step]], status: int, healthy: bool) -> None:
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        server.status = status  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            assert (health_exit(stages, server.server_port) == 0) is healthy
        finally:
            server.shutdown()
            thread.join()


def test_health_check_fails_where_nothing_listens(stages: list[list[Step]]) -> None:
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        port = server.server_port
    assert health_exit(stages, port) != 0


class Built(NamedTuple):
    """What the first stage left: its working directory, and the environment for the image."""

    work: Path
    target: Path


@pytest.fixture(scope="module")
def built(stages: list[list[Step]], from_fetched: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Take the steps of the first stage here."""
    work = tmp_path_factory.mktemp("build")
    target = work.with_name("voicelog-of-image")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**without_own_paths(), **from_fetched, "PATH": path}
    for word, rest in stages[0]:
        if word == "COPY":
            source, where = ROOT / rest.split()[0], work / rest.split()[1]
            shutil.copytree(source, where) if source.is_dir() else shutil.copy(source, where)
        if word == "RUN":
            command = rest.replace("/opt/voicelog", str(target))
            done = subprocess.run(
                ["sh", "-c", command], cwd=work, env=environment,
                capture_output=True, text=True, check=False, timeout=280,
            )  # fmt: skip
            assert_clean(done)
    return Built(work, target)


@pytest.mark.packaging
def test_steps_that_build_the_image_give_an_environment_that_runs_the_sink(built: Built) -> None:
    (packages,) = built.target.glob("lib/python*/site-packages")
    wanted = {file.name for file in (ROOT / "cql").glob("*.cql")}
    assert wanted
    assert {file.name for file in (packages / "voicelog_sink" / "cql").iterdir()} >= wanted
    assert [name for name in ("pip", "pytest", "hatchling") if (packages / name).exists()] == []


@pytest.mark.packaging
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
def test_images_sink_reads_percentiles_by_the_extension(built: Built) -> None:
    ask = "from voicelog_sink import total; print(total._quick.CONTRACT == total.CONTRACT)"
    done = subprocess.run([built.target / "bin" / "python", "-c", ask], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
