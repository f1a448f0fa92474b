"""The scoring job, see scoring.py."""

from __future__ import annotations

import choreo
from agents.scoring import score
from schemas import Payment

app = choreo.App("topologies/payments.yaml", agent="off_memory")
app.on(Payment)(score)
