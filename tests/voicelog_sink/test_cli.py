"""The command line: its options come from the settings, and every error is one sentence and a status."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from tests.running import SINK, environment, sink

from voicelog.errors import ConfigError
from voicelog.settings import SETTINGS, Settings, load
from voicelog_sink import cli
from voicelog_sink.commands import dev, init, run
from voicelog_sink.options import flag, secrets_epilog, with_settings

FOR_THE_SINK = [row for row in SETTINGS if row.used_by != "library"]
OPTIONS = [row for row in FOR_THE_SINK if not row.secret]
SECRETS = [row for row in FOR_THE_SINK if row.secret]
VALUES = {"brokers": "h:1", "kafka_config": "a=b", "http": "off"}


def names_of_commands() -> list[str]:
    return cli.group.list_commands(click.Context(cli.group))


def help_of(name: str) -> str:
    """Return a command's help with its line breaks taken out."""
    command = cli.group.get_command(click.Context(cli.group), name)
    assert command is not None
    return " ".join(command.get_help(click.Context(command, info_name=name)).split())


def loaded(*args: str) -> Settings:
    """Return the settings that a command with all options gets."""
    caught: list[Settings] = []

    @click.command()
    @with_settings(*(row.name for row in FOR_THE_SINK))
    def command(settings: Settings) -> None:
        caught.append(settings)

    result = CliRunner().invoke(command, list(args), standalone_mode=False)
    if result.exception:
        raise result.exception
    return caught[0]


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row.name)
def test_option_sets_its_setting_and_wins_over_the_environment(row, monkeypatch) -> None:
    wanted, other = (
        VALUES.get(row.name, "7"),
        {"brokers": "x:2", "kafka_config": "c=d", "http": "on"}.get(row.name, "8"),
    )
    monkeypatch.setenv(row.env, other)
    expected = load({row.name: wanted}, {})[0]
    assert loaded(flag(row), wanted).values[row.name] == expected.values[row.name]
    assert loaded().values[row.name] == load({}, {row.env: other})[0].values[row.name]


@pytest.mark.parametrize("module", [run, dev, init], ids=lambda module: module.__name__.rpartition(".")[2])
def test_help_shows_each_option_with_environment_and_default_and_has_an_example(module) -> None:
    name = module.__name__.rpartition(".")[2]
    text = help_of(name)
    for row in OPTIONS:
        assert (f" {flag(row)} " in text) == (row.name in module.SETTINGS)
        assert (f"[env: {row.env};" in text or f"[env: {row.env}]" in text) == (row.name in module.SETTINGS)
    assert f"voicelog-sink {name}" in text.partition("Example")[2]


def test_every_setting_of_the_sink_is_an_option_of_run_or_init() -> None:
    assert {row.name for row in FOR_THE_SINK} == {*run.SETTINGS, *init.SETTINGS}


def test_fault_of_our_own_is_one_sentence_and_a_traceback_on_request() -> None:
    program = (
        "import sys; from voicelog_sink import cli; from voicelog_sink.commands import init;"
        "init.command.callback = lambda **given: {}['nothing']; sys.exit(cli.main(['init']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "unexpected KeyError at <string>:1: 'nothing'; this is a fault of voicelog-sink" in ended.stderr
    assert "Traceback" not in ended.stderr
    shown = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=False)
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize("row", SECRETS, ids=lambda row: row.name)
def test_secret_comes_from_the_environment_only_and_help_says_so(row) -> None:
    text = help_of("run")
    assert flag(row) + " " not in text
    assert "Only from the environment" in text
    assert row.env in text
    refused = sink("run", flag(row), "hunter2")
    assert refused.returncode == 2
    assert "hunter2" not in refused.stderr
    assert "No such option" in refused.stderr
    assert row.env in secrets_epilog(row.name)


@pytest.mark.parametrize("name", names_of_commands())
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = cli.group.get_command(click.Context(cli.group), name)
    assert command is not None
    assert command.help
    text = command.get_help(click.Context(command, info_name=name))
    assert "xample" in text
    assert f"voicelog-sink {name}" in text.partition("xample")[2]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["initt"], "'initt' is no command of voicelog-sink: did you mean init?"),
        (["dlq", "lst"], "'lst' is no command of voicelog-sink dlq: did you mean list?"),
        (["dlq", "foo"], "'foo' is no command of voicelog-sink dlq: expected one of list, replay, show"),
        (["retention", "rest"], "'rest' is no command of voicelog-sink retention: did you mean reset?"),
        (["retention", "foo"], "'foo' is no command of voicelog-sink retention: expected one of reset, set, show"),
        (["xyzzy"], "'xyzzy' is no command of voicelog-sink: expected one of "),
        (["run", "--broker", "h:1"], "No such option '--broker'."),
        (["run", "--brokers", "nowhere"], "--brokers is 'nowhere': expected host:port, or several with commas"),
        (["run", "--ttl-days", "-1"], "--ttl-days is '-1': expected a whole number above 0"),
        (["run", "--store", "mysql://x"], "store 'mysql://x': expected sqlite:///path.db or scylla://"),
        (["run", "--log-format", "xml"], "VOICELOG_LOG_FORMAT is 'xml': expected text or json"),
        (["run", "--http", "here"], "VOICELOG_HTTP is 'here': expected host:port"),
        (["run", "extra"], "Got unexpected extra argument (extra)"),
        (["init", "--store", "sqlite://"], "sqlite"),
    ],
)
def test_wrong_use_is_status_2_and_says_what_was_expected(args: list[str], says: str) -> None:
    ended = sink(*args)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert says in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_unknown_name_in_the_environment_is_status_2_with_the_nearest_one() -> None:
    ended = sink("run", BROKRES="x:1")
    assert ended.returncode == 2
    assert ended.stderr == (
        "voicelog-sink: 'brokres' (VOICELOG_BROKRES) is no setting of voicelog: did you mean brokers "
        "(VOICELOG_BROKERS)?\n"
    )


def test_every_problem_of_the_environment_is_told_at_once(monkeypatch) -> None:
    monkeypatch.setenv("VOICELOG_TTL_DAYS", "soon")
    monkeypatch.setenv("VOICELOG_BROKERS", "nowhere")
    with pytest.raises(ConfigError, match=r"VOICELOG_TTL_DAYS is 'soon'.*; VOICELOG_BROKERS is 'nowhere'"):
        loaded()


def test_librarys_settings_in_the_environment_are_no_problem(monkeypatch) -> None:
    monkeypatch.setenv("VOICELOG_CAPTURE_CONTENT", "all")
    monkeypatch.setenv("VOICELOG_SERVICE", "front-desk")
    assert loaded().service == "front-desk"


def test_secret_is_not_shown_when_it_is_wrong_or_printed(monkeypatch) -> None:
    monkeypatch.setenv("VOICELOG_SASL_PASSWORD", "hunter2")
    assert "hunter2" not in repr(loaded())


def test_version_is_the_distributions() -> None:
    assert sink("--version").stdout.startswith("voicelog-sink ")


def test_closed_pipe_ends_quietly() -> None:
    ended = subprocess.run(
        f"{' '.join(SINK)} run --help | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.stderr == ""
    assert ended.stdout.startswith("Usage: voicelog-sink run")


def test_output_into_a_closed_pipe_is_no_traceback() -> None:
    program = "import sys; from voicelog_sink.cli import main; sys.exit(main(['run', '--help']))"
    reader = subprocess.Popen([sys.executable, "-c", "import os; os.close(0)"], stdin=subprocess.PIPE)
    reader.wait()
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=reader.stdin, stderr=subprocess.PIPE, env=environment(), check=False
    )
    assert reader.stdin is not None
    reader.stdin.close()
    assert (ended.returncode, ended.stderr) == (0, b"")
