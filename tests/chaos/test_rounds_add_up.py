"""What surrounds the rounds: schedules by seed, sittings that add up, measures taken from the coordinator's log."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.bank import campaign, collect, faults
from tests.chaos.bank.campaign import Campaign, replay_command
from tests.chaos.bank.evidence import Commit, Disturbance, Evidence
from tests.chaos.bank.round import Result, recoveries, spread
from tests.chaos.bank.synthetic import right_round
from tests.chaos.bank.world import Kill, stamp_ms


def result(number: int, *, kills: int = 50, ok: bool = True) -> Result:
    return Result(
        seed=3, number=number, store="memory", ok=ok, asked=kills, kills=kills, fired={faults.KILL: kills},
        planned={faults.KILL: kills}, transfers=10, decisions=30, events=30, dead_letters=1, duplicates=1, lost=0,
        repeated=0, problems=() if ok else ("I1 lost: 1 (x)",), snapshots=5, ledger_calls=9, ledger_repeated=1,
        fenced=0, crashes=0, recover_s=(1.0, 3.0), heal_s=2.0, fault_s=10.0, seconds=20.0, decisions_per_s=3.0,
        state_hash="abc", commit="c",
    )  # fmt: skip


class Player:
    """Plays rounds without playing them; the numbers in ``wrong`` fail, those in ``dies`` have no result."""

    def __init__(self, *wrong: int, dies: tuple[int, ...] = ()) -> None:
        self.wrong = wrong
        self.dies = dies
        self.played: list[tuple[int, int]] = []

    def __call__(
        self, folder: Path, *, seed: int, number: int, kills: int, store: str, nodes: int, tell: object
    ) -> Result | None:
        self.played.append((number, kills))
        return None if number in self.dies else result(number, kills=kills, ok=number not in self.wrong)


def sitting(folder: Path, player: Player, monkeypatch: pytest.MonkeyPatch, *, kills: int, resume: bool) -> bool:
    monkeypatch.setattr(campaign, "play_apart", player)
    job = Campaign(kills, 3, 0.0, folder)
    return campaign.run(job, resume=resume, tell=lambda _: None, done=lambda _: None)


def test_rounds_go_on_until_there_are_enough_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player()
    assert sitting(tmp_path, player, monkeypatch, kills=120, resume=False)
    assert player.played == [(1, 50), (2, 50), (3, 20)]
    body = json.loads((tmp_path / "chaos.json").read_text("utf-8"))
    assert (body["kills"], body["rounds"], body["ok"], body["lost"]) == (120, 3, True, 0)
    assert body["kills_missed_rate_95"] == 3 / 120
    assert {"command", "commit", "date", "machine", "versions", "parameters"} <= body.keys()


def test_a_later_sitting_goes_on_where_the_earlier_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sitting(tmp_path, Player(), monkeypatch, kills=100, resume=False)
    player = Player()
    assert sitting(tmp_path, player, monkeypatch, kills=150, resume=True)
    assert player.played == [(3, 50)]
    assert sum(one.kills for one in campaign.load(tmp_path / "chaos-state.json").played) == 150
    anew = Player()
    sitting(tmp_path, anew, monkeypatch, kills=50, resume=False)
    assert anew.played == [(1, 50)]


def test_a_wrong_round_ends_the_run_and_is_never_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(2)
    assert not sitting(tmp_path, player, monkeypatch, kills=500, resume=False)
    assert player.played == [(1, 50), (2, 50)]
    body = json.loads((tmp_path / "chaos.json").read_text("utf-8"))
    assert not body["ok"]
    assert body["problems"][0]["replay"] == "make chaos SEED=3 ROUND=2 KILLS=50"
    assert body["kills_missed_rate_95"] is None
    assert not sitting(tmp_path, Player(), monkeypatch, kills=150, resume=True)  # later rounds do not make it right


def test_a_round_whose_own_process_died_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(dies=(2,))
    assert sitting(tmp_path, player, monkeypatch, kills=100, resume=False)
    assert player.played == [(1, 50), (2, 50), (3, 50)]
    body = json.loads((tmp_path / "chaos.json").read_text("utf-8"))
    assert (body["kills"], body["rounds"], body["rounds_broken_off"]) == (100, 2, [[3, 2]])
    always = Player(dies=(1, 2, 3))
    assert not sitting(tmp_path, always, monkeypatch, kills=100, resume=False)
    assert [number for number, _ in always.played] == [1, 2, 3]


def test_one_round_is_played_again_by_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player()
    monkeypatch.setattr(campaign, "play_apart", player)
    job = Campaign(50, 3, 0.0, tmp_path, only=7)
    assert campaign.run(job, resume=False, tell=lambda _: None, done=lambda _: None)
    assert player.played == [(7, 50)]
    assert not (tmp_path / "chaos-state.json").exists()
    assert replay_command(result(7)) == "make chaos SEED=3 ROUND=7 KILLS=50"


@pytest.mark.parametrize("kills", [1, 15, 50])
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_a_schedule_has_every_fault_and_depends_on_the_seed_alone(seed: str, kills: int) -> None:
    order = faults.schedule(seed, kills, "rocksdb")
    assert order == faults.schedule(seed, kills, "rocksdb")
    assert set(order) == set(faults.FAULTS)
    assert set(faults.schedule(seed, kills, "memory")) == set(faults.FAULTS) - {faults.DISK_FULL}
    times = Counter(order)
    assert times[faults.LEAVE] == times[faults.JOIN]
    joined = 0
    for kind in order:  # nobody leaves who has not joined
        joined += (kind == faults.JOIN) - (kind == faults.LEAVE)
        assert joined >= 0


def test_recovery_is_measured_to_the_first_commit_that_gets_on() -> None:
    round_: Evidence = right_round(1, transactions=1)
    round_.disturbances = [Disturbance("kill -9", ("debit",), 1_000, 1_500)]
    round_.commits = [
        Commit("bank.debit", "transfers", 0, 10, "m", "bank.debit.debit-1", 900),
        Commit("bank.debit", "transfers", 0, 10, "m", "bank.debit.debit-1", 2_000),  # taken on as it was
        Commit("bank.debit", "transfers", 1, 50, "m", "bank.debit.debit-2", 2_100),  # another worker
        Commit("bank.debit", "transfers", 0, 11, "m", "bank.debit.debit-1", 2_500),
    ]
    kill = Kill("debit", "bank.debit.debit-1", 1_000)
    assert recoveries([kill], round_) == [1.5]
    round_.disturbances.append(Disturbance("kill -9", ("debit",), 1_200, 1_300, "bank.debit.debit-2"))
    assert recoveries([kill], round_) == [1.5]
    round_.disturbances.append(Disturbance("broker restart", ("debit", "credit"), 1_200, 1_300))
    assert recoveries([kill], round_) == []
    assert spread([3.0, 1.0, 2.0]) == (2.0, 3.0)
    assert spread([]) == (0.0, 0.0)


def test_offset_commits_are_read_as_the_coordinator_writes_them() -> None:
    owner = b"bank.debit.debit-1"
    metadata = b"1" + base64.b64encode(bytes([len(owner)]) + owner + b"\1\2").rstrip(b"=")
    long_text = b"x" * 200
    reader = collect._Bytes(struct.pack(">hq", 4, 7) + bytes([len(metadata) + 1]) + metadata + b"\xc9\x01" + long_text)
    assert (reader.int16(), reader.int64()) == (4, 7)
    assert reader.compact_text() == metadata.decode()
    assert reader.compact_text() == long_text.decode()
    assert collect._owner(metadata.decode()) == owner.decode()
    assert collect._owner("") == ""


def test_log_lines_tell_their_time() -> None:
    assert stamp_ms("no time") is None
    one, other = (stamp_ms(f"[2026-01-02 03:04:05,{ms}] [1] [INFO] x") for ms in ("100", "350"))
    assert one is not None
    assert other is not None
    assert other - one == 250
