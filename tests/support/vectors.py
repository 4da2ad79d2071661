"""The golden values under tests/vectors: made by other implementations, never to be made anew by ours."""

import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parents[1] / "vectors"


def read(name: str) -> Any:
    """The content of tests/vectors/<name>.json."""
    return json.loads((VECTORS / f"{name}.json").read_text())


TRANSACTIONS: list[dict[str, Any]] = read("transactions")["transactions"]
"""Each with name, transaction, unsigned, hashed, digests."""

KEYS: dict[str, dict[str, str]] = read("transactions")["keys"]
"""By person: seed (hex), public_key and private_key (base58)."""

CONDITIONS: list[dict[str, Any]] = read("conditions")["conditions"]
"""Each with name, details, signers, uri, fulfillment; the latter signs MESSAGE."""

MESSAGE = bytes.fromhex(read("conditions")["message"])
