"""The machine a figure was taken on, the CPU seconds of each process of a node, and the Ed25519 yardstick.

Reads /proc, so Linux only. Nothing here changes what it measures.
"""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ed25519_zebra import ed_verify

from bcdb.model import KeyPair, decode_key, verify
from bcdb.model.keys import verify_signature
from tests.support.server import members_of_session

CORES = len(os.sched_getaffinity(0))
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
YARDSTICK_S = 1.0
ROLES = {
    "bcdb.node.process": "node",
    "bcdb.node.projection": "projector",
    "bcdb.http.worker": "workers",
    "mongod": "mongod",
    "cometbft": "cometbft",
}


def description() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{len(os.sched_getaffinity(0))} CPUs ({model}), {memory_kib // 2**20} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def cpu_seconds_of(pid: int) -> float:
    """User and system time of one process. Raises `OSError` when it is gone."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / TICKS_A_SECOND


def busy_seconds() -> float:
    """What all cores of the machine have spent on anything since it was started."""
    user, nice, system, _idle, _iowait, *interrupts = (
        Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    return sum(map(int, (user, nice, system, *interrupts))) / TICKS_A_SECOND


def cpu_seconds(session: int) -> dict[str, float]:
    """User and system time of a node's processes by role; the API workers are added up."""
    found: dict[str, float] = {}
    for pid in members_of_session(session):
        try:
            program, *words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            used_s = cpu_seconds_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        role = next((ROLES[word] for word in (Path(program).name, *words) if word in ROLES), "supervisor")
        found[role] = found.get(role, 0.0) + used_s
    return found


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {role: round(seconds - before.get(role, 0.0), 2) for role, seconds in sorted(after.items())}


def _ed25519_rate(seconds: float) -> float:
    pair, message = KeyPair.from_seed(bytes([7]) * 32), b"m" * 32
    signature, key = pair.sign(message), decode_key(pair.public_key)
    assert verify_signature(key, message, signature)
    count, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        for _ in range(200):
            ed_verify(signature, message, key)
        count += 200
    return count / taken


def _validation_rate(raw: list[bytes], seconds: float) -> float:
    count, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        for body in raw:
            verify(body)
        count += len(raw)
    return count / taken


def yardstick(bodies: list[bytes]) -> dict[str, float]:
    """Ed25519 verifications and whole stateless validations a second: on one core alone, on all at once."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores) as pool:
        together = sum(pool.map(_ed25519_rate, [YARDSTICK_S] * cores))
        whole = sum(pool.map(_validation_rate, [bodies] * cores, [YARDSTICK_S] * cores))
    return {
        "ed25519_one_core": round(_ed25519_rate(YARDSTICK_S)),
        "ed25519_all_cores": round(together),
        "validation_one_core": round(_validation_rate(bodies, YARDSTICK_S)),
        "validation_all_cores": round(whole),
    }
