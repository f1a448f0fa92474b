"""The bank's three agents: the cases beside their topology, and money that adds up whatever is asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.bank.ledger import standing
from choreo.testing.cases import Case, read_cases
from choreo.testing.driver import TopologyDriver
from schemas import PayingAccount, ReceivingAccount, TransferDecided, TransferRequested

ACCOUNTS = ("A", "B", "C")
OPENING_CENTS = 1_000_000


@pytest.mark.parametrize("case", read_cases("topologies/bank.test.yaml"), ids=str)
def test_case(case: Case) -> None:
    case.check()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(1, 1_200_000)),
        min_size=1,
        max_size=12,
    )
)
def test_no_money_is_made_or_lost_and_every_transfer_ends_once(wishes: list[tuple[str, str, int]]) -> None:
    driver = TopologyDriver("topologies/bank.yaml")
    for number, (payer, payee, cents) in enumerate(wishes):
        driver.answer(standing, "good")
        driver.send(TransferRequested(account=payer, transfer_id=f"T{number}", payee=payee, amount_cents=cents))
    total = 0
    for name in ACCOUNTS:
        paying, receiving = driver.row(PayingAccount, name), driver.row(ReceivingAccount, name)
        total += OPENING_CENTS if paying is None else paying.balance_cents
        total += 0 if receiving is None else receiving.received_cents
        assert paying is None or paying.balance_cents >= 0
    assert total == OPENING_CENTS * len(ACCOUNTS)
    decided = Counter(outcome.transfer_id for outcome in driver.read(TransferDecided))
    assert decided == {f"T{number}": 1 for number in range(len(wishes))}
