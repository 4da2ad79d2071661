"""A process that writes to a ledger until it is told to stop, dies, or the disk is full.

`python -m tests.ledger.writer LEDGER ANSWERS ROUNDS [PADDING]` appends one line to ANSWERS for each promise
that it makes, after the flush that covers it and never before: `accepted ID`, `height N`. It prints why it
ended.
"""

import os
import sys
from itertools import count
from pathlib import Path

from bcdb.ledger import trace
from bcdb.model.errors import StorageFailed
from tests.ledger.world import header, open_ledger
from tests.support.transactions import Signed, alice, bob, carol, create, transfer


def write(path: Path, answers: Path, rounds: int, padding: int) -> None:
    """Each round accepts, flushes, promises, then commits a block that settles and rejects some of it."""
    descriptor = os.open(answers, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def promise(line: str) -> None:
        os.write(descriptor, line.encode() + b"\n")

    ledger = open_ledger(path)
    owned: list[Signed] = []
    for number in count() if rounds == 0 else range(rounds):
        made = [
            create(
                alice,
                asset={"n": f"{ledger.head.height} {number} {index}"},
                metadata={"p": "x" * padding or "x"},
            )
            for index in range(4)
        ]
        ours = [transfer([(item, 0)], [([bob.public_key], 1)]) for item in owned]
        rival = [transfer([(item, 0)], [([carol.public_key], 1)]) for item in owned[:1]]
        for accepted in (made, ours):
            refusals = ledger.accept([item.verified for item in accepted])
            assert not any(refusals), refusals
        ledger.flush()
        for item in (*made, *ours):
            promise(f"accepted {item.verified.id.hex()}")
            trace.answered(item.verified.id)
        block = [item.verified for item in (*rival, *ours[:2], *made[:3])]
        ledger.commit(ledger.apply(header(ledger.head.height + 1), block))
        ledger.flush()
        promise(f"height {ledger.head.height}")
        trace.published(ledger.head.height)
        owned = made[:3]
    ledger.close()


def main() -> None:
    path, answers, rounds, *padding = sys.argv[1:]
    try:
        write(Path(path), Path(answers), int(rounds), int(padding[0]) if padding else 0)
    except StorageFailed as error:
        print(error.text)
        sys.exit(3)


if __name__ == "__main__":
    main()
