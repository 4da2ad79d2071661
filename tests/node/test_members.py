"""The members' file: what it may say, and that it is read again when it has changed."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bcdb.model import limits
from bcdb.model.errors import SettingsError
from bcdb.model.keys import KeyPair, decode_key
from bcdb.node.members import LOOK_S, Member, Members, MembersFile, members_file, read_members

KEYS = [KeyPair.from_seed(bytes([seed]) * 32).public_key for seed in range(1, 6)]
BANK = Member("bank", "a" * 40, KEYS[0], "bank.example.org:26656")
CLINIC = Member("clinic", "b" * 40, KEYS[1], "[2001:db8::1]:26656", 32)
READER = Member("reader", "c" * 40)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "members.toml"
    path.write_text(members_file([BANK, CLINIC, READER]))
    found = read_members(path)
    assert found.all == (BANK, CLINIC, READER)
    assert found.may_peer(BANK.node_id)
    assert not found.may_peer("d" * 40)
    assert found.submitter(decode_key(KEYS[1])) == CLINIC
    assert found.submitter(decode_key(KEYS[2])) is None
    assert CLINIC.quota_bytes == 32 * 1024 * 1024


@pytest.mark.parametrize(
    ("member", "word"),
    [
        (Member("", "a" * 40), "name"),
        (Member("two words", "a" * 40), "name"),
        (Member('x"\n', "a" * 40), "name"),
        (Member("bank", "A" * 40), "node_id"),
        (Member("bank", "a" * 39), "node_id"),
        (Member("bank", "a" * 40, "no key"), "key"),
        (Member("bank", "a" * 40, KEYS[0], "no port"), "address"),
        (Member("bank", "a" * 40, KEYS[0], "host:65536"), "address"),
        (Member("bank", "a" * 40, KEYS[0], "a,b:1"), "address"),
        (Member("bank", "a" * 40, quota_mb=limits.SUBMITTER_QUOTA_MB_MIN - 1), "quota_mb"),
        (Member("bank", "a" * 40, quota_mb=limits.SUBMITTER_QUOTA_MB_MAX + 1), "quota_mb"),
    ],
)
def test_what_a_member_may_not_be(member: Member, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        Members([member])


@pytest.mark.parametrize(
    "twin",
    [
        Member("bank", "d" * 40, KEYS[2]),
        Member("other", BANK.node_id, KEYS[2]),
        Member("other", "d" * 40, KEYS[0]),
    ],
)
def test_no_two_are_the_same(twin: Member) -> None:
    with pytest.raises(SettingsError, match="share"):
        Members([BANK, twin])


def test_there_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBERS_MAX", 1)
    with pytest.raises(SettingsError, match="at most 1"):
        Members([BANK, CLINIC])


@pytest.mark.parametrize(
    "text",
    [
        "[[members]]",
        "members = 1",
        "x = 1",
        '[[members]]\nname = "a"\nnode = "b"',
        "\x00",
        "[",
        "members = []",
    ],
)
def test_a_file_that_is_none_is_told_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "members.toml"
    path.write_text(text)
    if text == "members = []":
        assert read_members(path).all == ()
        return
    with pytest.raises(SettingsError, match=r"members\.toml"):
        read_members(path)


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="network join"):
        read_members(tmp_path / "members.toml")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "members.toml", Clock()
    path.write_text(members_file([BANK]))
    file = MembersFile(path, clock=clock)
    assert file.current.all == (BANK,)
    _replace(path, members_file([BANK, CLINIC]))
    assert file.current.all == (BANK,), "the date is not looked at for every peer and bundle"
    clock.now += LOOK_S
    assert file.current.all == (BANK, CLINIC)
    for broken in ("[", members_file([BANK]).replace("bank.", "b ")):
        _replace(path, broken)
        clock.now += LOOK_S
        with capture_logs() as logs:
            assert file.current.all == (BANK, CLINIC)
        assert [line["event"] for line in logs] == ["the members stay as they were"]
        assert file.current.all == (BANK, CLINIC)
    path.unlink()
    clock.now += LOOK_S
    assert file.current.all == (BANK, CLINIC)
    _replace(path, members_file([CLINIC]))
    clock.now += LOOK_S
    assert file.current.all == (CLINIC,)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)
