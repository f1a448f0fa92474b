"""Topics of the simulated agent beside those its steps write."""

from __future__ import annotations

from typing import Final

from choreo.topology import names
from tests.kernel.fakes import AGENT, TOPOLOGY

JOURNAL: Final = names.journal(TOPOLOGY, AGENT)
TIMERS: Final = names.timers(TOPOLOGY, AGENT)
PARKED: Final = names.parked(TOPOLOGY, AGENT)
INBOX: Final = names.settled(TOPOLOGY, AGENT)
