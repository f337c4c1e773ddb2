"""TLS towards the CQL store."""

from __future__ import annotations

import ssl

from voicelog.settings import Settings
from voicelog_sink.stores.base import StoreMisconfigured


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context, None without cql_ca_file; raises StoreMisconfigured.

    Nodes are found by their addresses, so the certificate's authority is checked and not its name.
    """
    if not settings.cql_ca_file:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.cql_ca_file)
        context.check_hostname = False
        if settings.cql_certificate_file:
            context.load_cert_chain(settings.cql_certificate_file, settings.cql_key_file or None)
    except OSError as exc:
        files = ", ".join(filter(None, (settings.cql_ca_file, settings.cql_certificate_file, settings.cql_key_file)))
        message = f"the store's TLS files can't be used ({files}): {exc}; set VOICELOG_CQL_CA_FILE and its neighbours"
        raise StoreMisconfigured(message) from exc
    return context
