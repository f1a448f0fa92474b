"""Avro schemas of the records that choreo itself writes: a public format."""
