"""The same blocks on several nodes that differ in hash seed and in what they had accepted: the same in every
bit.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from bcdb.ledger.store import open_read_only
from tests.ledger.promises import ROOT
from tests.ledger.world import faults
from tests.support.transactions import Signed, alice, bob, create, everyone, transfer

CONSENSUS_FAMILIES = ("transactions", "outputs", "owned", "assets", "blocks", "log", "meta")
"""What must be the same everywhere; `wal` and `status` are each node's own."""


def random_blocks(chance: random.Random) -> list[list[Signed]]:
    """Blocks with conflicts, chains inside a block, things too early, and things sent twice."""
    known = [
        create(
            [alice, bob], recipients=[([person.public_key], 6) for person in everyone], asset={"n": number}
        )
        for number in range(4)
    ]
    unspent = [(item, index) for item in known for index in range(3)]
    everything = list(known)
    for _ in range(40):
        source, index = chance.choice(unspent[-12:])
        amount = int(source.tx["outputs"][index]["amount"])
        share = chance.randint(1, amount)
        people = chance.sample(everyone, 2)
        shares = [([people[0].public_key], share)]
        if share < amount:
            shares.append(([person.public_key for person in people], amount - share))
        asset_id = source.tx["asset"].get("id", source.tx["id"])
        made = transfer([(source, index)], shares, asset_id=asset_id, metadata={"n": len(everything)})
        everything.append(made)
        unspent += [(made, output) for output in range(len(shares))]
    blocks = []
    while everything:
        count = chance.randint(1, 6)
        block, everything = everything[:count], everything[count:]
        chance.shuffle(block)
        blocks.append(block + chance.sample(block, 1))
    return [*blocks, *chance.sample(blocks, 2)]


def rows(path: Path, family: str) -> list[tuple[bytes, bytes]]:
    families = open_read_only(path)
    found = list(families[family].items())
    families.close()
    return found


def test_nodes_agree_in_every_bit(tmp_path: Path) -> None:
    blocks = random_blocks(random.Random(3))
    file = tmp_path / "blocks"
    file.write_text("".join(json.dumps([item.raw.decode() for item in block]) + "\n" for block in blocks))
    outputs = []
    for seed in ("1", "2", "77"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.ledger.replayer", str(tmp_path / seed), str(file), seed],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout)
        assert faults(tmp_path / seed) == []
    assert outputs[0] == outputs[1] == outputs[2]
    statuses = {result[1] for line in outputs[0].splitlines() for result in json.loads(line)[1]}
    assert statuses == {"committed", "duplicate", "rejected"}
    for family in CONSENSUS_FAMILIES:
        assert rows(tmp_path / "1", family) == rows(tmp_path / "2", family) == rows(tmp_path / "77", family)
