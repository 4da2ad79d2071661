"""A process that applies given blocks to a new ledger, after accepting what is in them in an order of its
own.

`python -m tests.ledger.replayer LEDGER BLOCKS SEED`: BLOCKS has a block a line, each a JSON list of
transactions as text; SEED shuffles the order of acceptance. It prints the app hash and the results of every
block.
"""

import json
import random
import sys
from pathlib import Path

from bcdb.model.validation import verify
from tests.ledger.world import header, open_ledger


def main() -> None:
    path, file, seed = sys.argv[1:]
    blocks = [
        [verify(text.encode()) for text in json.loads(line)] for line in Path(file).read_text().splitlines()
    ]
    ledger = open_ledger(Path(path))
    arrived = list({transaction.id: transaction for block in blocks for transaction in block}.values())
    random.Random(seed).shuffle(arrived)
    for number, block in enumerate(blocks):
        # What can't be accepted yet comes by again before each block; some of it only in a block.
        for start in range(number % 2, len(arrived), 3):
            ledger.accept(arrived[start : start + 2])
        outcome = ledger.apply(header(ledger.head.height + 1), block)
        ledger.commit(outcome)
        results = [
            (result.id.hex(), result.status, result.position, result.name, result.text)
            for result in outcome.results
        ]
        print(json.dumps([outcome.app_hash.hex(), results]))
    ledger.close()


if __name__ == "__main__":
    main()
