"""A small topology without problems: docs/lints.md shows each lint's examples as fragments laid over it."""

from __future__ import annotations

from typing import Final

TOPOLOGY: Final = """\
choreo: 1
topology: parcels
topics:
  orders:    {schema: Order, key: parcel_id, external: true}
  scans:     {schema: Scan, key: parcel_id, ingress: true}
  delays:    {schema: Delay, key: parcel_id}
  apologies: {schema: Apology, key: customer}
tables:
  parcels:   {schema: Parcel, key: parcel_id}
  depots:    {schema: Depot, key: code, reference: true}
tools:
  forecast:  {function: "agents.tracker:forecast", effect: read}
agents:
  tracker:
    reads: [orders, scans]
    writes: [delays]
    tables: [parcels, depots]
    tools: [forecast]
  desk:
    reads: [delays]
    writes: [apologies]
flows:
  told: {from: scans, to: apologies, within: 1m, at_most: 1}
"""

SCHEMAS: Final[dict[str, str]] = {
    "Order.avsc": """{"type": "record", "name": "Order", "fields": [
  {"name": "parcel_id", "type": "string"}, {"name": "customer", "type": "string"}]}""",
    "Scan.avsc": """{"type": "record", "name": "Scan", "fields": [
  {"name": "parcel_id", "type": "string"}, {"name": "depot", "type": "string"},
  {"name": "belt", "type": "int"}, {"name": "weight", "type": "double"},
  {"name": "label", "type": ["null", "string"], "default": null}]}""",
    "Delay.avsc": """{"type": "record", "name": "Delay", "fields": [
  {"name": "parcel_id", "type": "string"}, {"name": "customer", "type": "string"},
  {"name": "minutes", "type": "int"}]}""",
    "Apology.avsc": """{"type": "record", "name": "Apology", "fields": [
  {"name": "customer", "type": "string"}, {"name": "parcel_id", "type": "string"}]}""",
    "Parcel.avsc": """{"type": "record", "name": "Parcel", "fields": [
  {"name": "parcel_id", "type": "string"}, {"name": "depot", "type": "string", "default": ""},
  {"name": "scans", "type": "choreo.Window", "window": {"kind": "sliding", "size": "1h", "every": "5m"}}]}""",
    "Depot.avsc": """{"type": "record", "name": "Depot", "fields": [
  {"name": "code", "type": "string"}, {"name": "city", "type": "string"}]}""",
    # Not used by the topology above; the fragments refer to them.
    "Belt.avsc": """{"type": "record", "name": "Belt", "fields": [
  {"name": "belt", "type": "int"}, {"name": "jams", "type": "int", "default": 0}]}""",
    "Careless.avsc": """{"type": "record", "name": "Careless", "fields": [
  {"name": "parcel_id", "type": "string"}, {"name": "depot", "type": "string"}]}""",
    "Uneven.avsc": """{"type": "record", "name": "Uneven", "fields": [
  {"name": "parcel_id", "type": "string"},
  {"name": "scans", "type": "choreo.Window", "window": {"kind": "sliding", "size": "1h", "every": "7m"}}]}""",
}
