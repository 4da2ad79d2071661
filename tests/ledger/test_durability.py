"""A power cut and a full disk: the trace shows no promise before its flush, and none is ever broken."""

import json
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.promises import check_promises, promised, writer
from tests.ledger.world import cut

DISK_BYTES = 6 * 1024 * 1024


def events(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, "the writer does not get on"
        time.sleep(0.005)


def test_no_promise_precedes_the_flush_that_covers_it(path: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with writer(path, tmp_path / "answers", rounds=8, BCDB_TRACE_FILE=str(trace)) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    covered, mark_of, answered, published = 0, dict[str, int](), 0, 0
    for event in events(trace):
        if event["event"] == "accepted":
            mark_of[event["id"]] = event["mark"]
        elif event["event"] == "flush-end":
            covered = event["mark"]
        elif event["event"] == "answered":
            answered += 1
            assert mark_of[event["id"]] <= covered
        elif event["event"] == "published":
            published += 1
    assert answered == len(mark_of) == 4 + 7 * 7
    assert published == 8


@pytest.mark.parametrize("rounds", [3, 9, 20])
def test_a_power_cut_leaves_what_was_flushed(path: Path, tmp_path: Path, rounds: int) -> None:
    """Killed under way, then all logs are cut to what they held when the last finished flush began."""
    trace, answers = tmp_path / "trace", tmp_path / "answers"
    with writer(path, answers, rounds=0, padding=5_000, BCDB_TRACE_FILE=str(trace)) as process:
        wait_for(lambda: promised(answers)[1] >= rounds or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    synced: dict[str, int] = {}
    begun: dict[str, int] = {}
    for event in events(trace):
        if event["event"] == "flush-begin":
            begun = event["sizes"]
        elif event["event"] == "flush-end":
            synced = begun
    assert synced
    cut(path, synced)
    check_promises(path, answers)


class SmallDisk:
    """A few MiB to write to: a filesystem of its own where mounting is allowed, else a limit on each file.

    The limit is that of the process on the size of files (RLIMIT_FSIZE); a write beyond it fails just as
    well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "bcdb-test", str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def limit(self, process: subprocess.Popen[str], file_bytes_max: int) -> None:
        if not self.mounted:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    def grow(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", self.folder], check=True)

    def leave(self) -> None:
        if self.mounted:
            subprocess.run(["umount", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.leave()


def test_a_disk_that_fills(small_disk: SmallDisk, tmp_path: Path) -> None:
    """Written until full: it ends with a sentence, and with space again everything promised is there."""
    path, answers = small_disk.folder / "ledger", tmp_path / "answers"
    with writer(path, answers, rounds=0, padding=20_000) as process:
        small_disk.limit(process, DISK_BYTES // 3)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    assert "Nothing is retried" in output
    assert promised(answers)[1] >= 3
    small_disk.grow()
    check_promises(path, answers)


def test_a_file_that_may_not_grow(path: Path, tmp_path: Path) -> None:
    """The same by the limit of a process on the size of files, which fails in the middle of a write."""
    answers = tmp_path / "answers"
    with writer(path, answers, rounds=0, padding=20_000) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (DISK_BYTES // 3, DISK_BYTES // 3))
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    assert "Nothing is retried" in output
    check_promises(path, answers)


def test_a_disk_that_is_full_from_the_start(small_disk: SmallDisk, tmp_path: Path) -> None:
    path, answers = small_disk.folder / "ledger", tmp_path / "answers"
    filler = small_disk.folder / "filler"
    if small_disk.mounted:
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(b"x" * 2 * DISK_BYTES)
    with writer(path, answers, rounds=1) as process:
        small_disk.limit(process, 0)
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "can't be" in output
    assert promised(answers) == ([], 0)
    filler.unlink(missing_ok=True)
    check_promises(path, answers)
