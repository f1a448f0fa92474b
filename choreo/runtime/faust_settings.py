"""Faust's settings as the topology and the environment imply them."""

from __future__ import annotations

import ssl
from typing import Any, Final

import faust

from choreo.errors import TopologyError
from choreo.runtime.site import Site

# Pages may show rows, so they are for this machine unless the operator says otherwise (WEB_BIND, --web-bind).
WEB_BIND: Final = "127.0.0.1"


def faust_settings(site: Site, worker: type[Any]) -> dict[str, Any]:
    """Keyword arguments for ``faust.App``.

    Args:
        site: which agent of which topology.
        worker: class that runs the app.
    """
    settings: dict[str, Any] = {
        "Worker": worker,
        "autodiscover": False,
        "datadir": site.project.state_dir / "faust" / site.group,
        "web_bind": WEB_BIND,
        "web_host": WEB_BIND,
        "topic_partitions": site.topology.partitions_of(site.agent.name),
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "broker_client_id": site.group,
    }
    bootstrap = site.project.settings.brokers or site.topology.cluster.bootstrap
    if bootstrap:
        settings["broker"] = [f"kafka://{address.strip()}" for address in bootstrap.split(",")]
        settings["broker_credentials"] = credentials(site)
    if site.agent.kind == "faust":
        from choreo.runtime.faust_schema import faust_types

        settings.update(faust_types(site))
    return settings


def credentials(site: Site) -> Any:
    """Faust's credentials from librdkafka's settings under ``cluster.security``; None for plain text.

    Raises:
        TopologyError: CH0102, a protocol or mechanism that Faust cannot do.
    """
    security = site.topology.cluster.security
    protocol = security.get("security.protocol", "plaintext").upper()
    if protocol == "PLAINTEXT":
        return None
    context = None
    if protocol in ("SSL", "SASL_SSL"):
        context = ssl.create_default_context(cafile=security.get("ssl.ca.location"))
        certificate = security.get("ssl.certificate.location")
        if certificate is not None:
            context.load_cert_chain(
                certificate, security.get("ssl.key.location"), password=security.get("ssl.key.password")
            )
        if security.get("ssl.endpoint.identification.algorithm") == "none":
            context.check_hostname = False
        if protocol == "SSL":
            return faust.SSLCredentials(context)
    mechanism = security.get("sasl.mechanism", security.get("sasl.mechanisms", ""))
    if protocol not in ("SASL_SSL", "SASL_PLAINTEXT") or mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise TopologyError(
            f"Faust cannot log in with {protocol} {mechanism}".rstrip(),
            where=site.topology.file,
            hint="use SSL, or SASL_SSL with PLAIN or SCRAM",
        )
    return faust.SASLCredentials(
        mechanism=mechanism,
        username=security.get("sasl.username"),
        password=security.get("sasl.password"),
        ssl_context=context,
    )
