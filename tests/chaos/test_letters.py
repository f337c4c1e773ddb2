"""Dead letters that can't be written: nothing is released before they are, whatever stands in their way."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from tests.chaos.audit import audit, wait_until_done
from tests.chaos.daemons import conditions, daemon
from tests.chaos.load import Sent, fleet, sent
from tests.chaos.producer import Position
from tests.chaos.truth import Truth, produced
from tests.real.sinks import Place
from tests.running import Raw, committed, wait_until
from tests.servers import KafkaServer
from tests.servers.topics import delete_topics

pytestmark = [pytest.mark.real, pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture
def place(kafka: KafkaServer, tmp_path: Path) -> Place:
    prefix = f"t{secrets.token_hex(4)}-"
    found = Place(kafka.bootstrap, prefix, f"sqlite:///{tmp_path}/calls.db")
    found.init()
    yield found
    delete_topics(kafka.bootstrap, prefix)


def admin_of(place: Place) -> AdminClient:
    return AdminClient({"bootstrap.servers": place.brokers, "log_level": 0})


def letters_of(place: Place) -> str:
    return f"{place.prefix}voicelog-dlq"


def deleted(place: Place) -> Callable[[], object]:
    """Delete the topic; `init` makes it again."""
    admin = admin_of(place)
    admin.delete_topics([letters_of(place)])[letters_of(place)].result(30)
    return place.init


def too_small(place: Place) -> Callable[[], object]:
    """Let the topic take less than there is to bury."""
    limit(place, "5000")
    return lambda: limit(place, "16777216")


def limit(place: Place, size: str) -> None:
    change = ConfigEntry("max.message.bytes", size, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, letters_of(place), incremental_configs=[change])
    admin = admin_of(place)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def forbidden(place: Place) -> Callable[[], object]:
    """Take away the right to write the topic."""
    who = (ResourceType.TOPIC, letters_of(place), ResourcePatternType.LITERAL)
    rule = AclBinding(*who, "User:ANONYMOUS", "*", AclOperation.WRITE, AclPermissionType.DENY)
    admin = admin_of(place)
    for future in admin.create_acls([rule]).values():
        future.result(30)

    def allow() -> None:
        every = AclBindingFilter(*who, None, None, AclOperation.ANY, AclPermissionType.ANY)
        for future in admin.delete_acls([every]).values():
            future.result(30)

    return allow


@pytest.mark.parametrize("harm", [deleted, too_small, forbidden])
def test_nothing_is_released_until_the_dead_letters_can_be_written(
    place: Place, harm: Callable[[Place], Callable[[], object]], random: Random, tmp_path: Path
) -> None:
    bad = [Sent(Raw("stt-results", b"\xff" + random.randbytes(8_000), b"%d" % n), "not_json") for n in range(40)]
    with daemon(place, tmp_path / "log") as running:
        running.wait_for("assigned: ")
        mend = harm(place)
        truth = produced(tmp_path, place, bad[:20])
        wait_until(lambda: conditions(running).get("dead_letters_up") is False, "it misses the dead letters", 60)
        rest = [*sent(fleet(random, 20)), *bad[20:]]
        random.shuffle(rest)
        truth += produced(tmp_path, place, rest)
        assert running.process.poll() is None
        unreleased(place, truth)
        mend()
        wait_until_done(place)
        assert running.stop() == 0
    assert audit(place, truth, summaries_within_s=0).repeated_letters == 0


def unreleased(place: Place, truth: Truth) -> None:
    """See that no committed offset has passed a message that is not in the dead letters."""
    first: dict[tuple[str, int], Position] = {}
    for at, one in sorted(truth.by_position().items()):
        if one.fate == "not_json":
            first.setdefault((at.topic, at.partition), at)
    passed = {
        place_: offset
        for place_, offset in committed(place.brokers, place.group, place.topics()).items()
        if place_ in first and offset > first[place_].offset
    }
    assert passed == {}
