"""What stops a command with one sentence on stderr, all of it below `SinkError`.

    SinkError
    ├── BrokerUnavailable   the broker does not answer: waiting may help
    ├── TopicsMissing       the broker answers, but topics are not there: `voicelog-sink init`
    ├── BrokerRefused       the broker will not let this client do it: an operator must act
    ├── OffsetsLost         the broker no longer has what the group has still to read
    ├── StdoutUnwritable    what was to be printed can't be written: a full disk (in streams.py)
    ├── PortTaken           the address for HTTP can't be had
    └── Unfinished          stopped before everything was stored

The store's errors are in stores/base.py, wrong settings are voicelog.errors.ConfigError.
"""

from __future__ import annotations


class SinkError(Exception):
    """Base of what the sink raises by itself; its text is the sentence that a person reads."""


class BrokerUnavailable(SinkError):
    """The broker can't be reached, or did not answer in time."""


class TopicsMissing(SinkError):
    """Topics that the sink reads or writes do not exist."""


class BrokerRefused(SinkError):
    """The broker answers and refuses: a login, a right, a fenced client."""


class OffsetsLost(SinkError):
    """Committed offsets lie outside of what the broker has: going on would skip messages silently."""


class PortTaken(SinkError):
    """The address that `http` names is in use or can't be bound."""


class Unfinished(SinkError):
    """The sink had to stop before all that it was asked to store was stored."""
