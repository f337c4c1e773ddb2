"""Free ports that stay free while a server is down."""

import random
import socket

# Below the ports that systems hand to outgoing connections: a client that keeps trying the port of a stopped
# server would otherwise be given that very port in time, connect to itself, and the server could not return.
CANDIDATES = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Picks different ports of 127.0.0.1 on which nothing listens."""
    # Not the shared generator: a seeded test run would give every run the same ports.
    candidates = random.SystemRandom().sample(CANDIDATES, 200)
    free = [port for port in candidates if _is_free(port)]
    if len(free) < count:
        raise RuntimeError(
            f"of 200 ports between 20000 and 31999, {len(free)} are free and {count} are needed: "
            "stop what listens there"
        )
    return free[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
