"""What an answer takes in a query store with many assets: a fixed mix of searches, and finding by fields.

The words are invented, and as frequent as the words of a language are once its stop words are left out: some
in one asset of twenty, most in a few. Every search is asked once of a fresh reader, so that none is answered
from what a reader remembers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from bcdb.model import KeyPair, limits
from bcdb.node.settings import Settings
from bcdb.node.stores import open_reader, open_store
from benchmarks.figures import Table, spread, step
from benchmarks.query_stores import STORES, Own, fresh_settings
from query import filters
from query.documents import Block, Input, Output, Transaction
from query.store import Find, QueryStore

PART = "search"
SEED = 20
BLOCK = 500
BLOCKS_AT_ONCE = 8
WORDS = 10_000
COMMON_WORDS = 20
"""The first ones of all words: each in some hundredths of all assets."""
FLAT_RANKS = 20
"""Makes the first words about as frequent as each other, as they are without stop words."""
TITLE_WORDS = 8
OWNERS = 500
P95_MS_MAX = 50
LIMIT = 10
EVERYWHERE = "inventory"
"""A word of every asset. Nobody searches for it, but it is the most that a search can cost."""
_SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "la",
    "me",
    "ni",
    "po",
    "ru",
    "sa",
    "te",
    "vi",
    "zo",
    "kra",
    "plu",
)


def _vocabulary(rng: random.Random) -> list[str]:
    """Words no two of which have one stem: all end in the same consonant."""
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(rng.choices(_SYLLABLES, k=rng.choice((3, 4)))) + "k"] = None
    return list(words)


class Corpus:
    """Assets with titles, and what is asked about them; the same in every run for the same number."""

    def __init__(self, assets: int) -> None:
        rng = random.Random(SEED)
        self._words = _vocabulary(rng)
        weights = list(itertools.accumulate(1 / (rank + FLAT_RANKS) for rank in range(WORDS)))
        self.titles = [rng.choices(self._words, cum_weights=weights, k=TITLE_WORDS) for _ in range(assets)]
        self._rng = rng
        self.keys = [
            KeyPair.from_seed(f"owner {number}".encode().ljust(32, b".")).public_key
            for number in range(min(OWNERS, assets // 10))
        ]

    def blocks(self) -> Iterator[Block]:
        for height, start in enumerate(range(0, len(self.titles), BLOCK), 1):
            made = [
                self._transaction(serial) for serial in range(start, min(start + BLOCK, len(self.titles)))
            ]
            mark = hashlib.sha256(b"%d" % height).digest()
            yield Block(height, mark, f"2026-01-01T00:00:00.{height:09d}Z", bytes(32), bytes(32), made)

    def id_of(self, serial: int) -> bytes:
        return hashlib.sha256(b"asset %d" % serial).digest()

    def _transaction(self, serial: int) -> Transaction:
        key = self.keys[serial % len(self.keys)]
        data = {
            "kind": EVERYWHERE,
            "title": " ".join(self.titles[serial]),
            "serial": serial,
            "padding": f"{serial:08d}" * 12,
        }
        condition = f"ni:///sha-256;{key}?fpt=ed25519-sha-256&cost=131072"
        return Transaction(
            self.id_of(serial),
            "CREATE",
            self.id_of(serial),
            (Input((key,), None),),
            (Output(1, (key,), condition),),
            json.dumps({"station": serial % 97}, separators=(",", ":")).encode(),
            json.dumps(data, separators=(",", ":")).encode(),
        )

    def searches(self, each: int) -> dict[str, list[str]]:
        """The fixed mix: `each` of every kind, of rare words twice as many. No two are the same."""
        common = self._words[:COMMON_WORDS]
        rng = self._rng
        there = {word for title in self.titles for word in title}
        rare = rng.sample([word for word in self._words[WORDS // 4 :] if word in there], 2 * each)
        middling = rng.sample(
            [word for word in self._words[COMMON_WORDS : WORDS // 20] if word in there], 2 * each
        )
        titles = rng.sample(self.titles, each)
        return {
            "rare words": rare,
            "common words": common[:each],
            "two words": [f"{rng.choice(common)} {word}" for word in middling[:each]],
            "a phrase": [f'"{title[0]} {title[1]}"' for title in titles],
            "an exclusion": [f"{word} -{rng.choice(common)}" for word in middling[each:]],
        }

    def questions(self, count: int) -> dict[str, list[Find]]:
        """By id and by key, which have indexes, and by a field of the app's own, which has none."""
        serials = self._rng.sample(range(len(self.titles)), count)

        def find(collection: str, **fields: Any) -> Find:
            named = {name.replace("__", "."): value for name, value in fields.items()}
            return Find(collection, filters.parse(named, collection), limit=LIMIT)

        return {
            "find by id": [find("transactions", id=self.id_of(serial).hex()) for serial in serials],
            f"find by key, {LIMIT} of its outputs": [
                find("outputs", public_keys=self.keys[serial % len(self.keys)]) for serial in serials
            ],
            "find by a field without index": [find("assets", data__serial=serial) for serial in serials],
        }


async def measure(table: Table, own: Own, assets: int, each: int) -> None:
    corpus = Corpus(assets)
    searches, questions = corpus.searches(each), corpus.questions(2 * each)
    for store in STORES:
        settings = fresh_settings(own, store, "search")
        with step(f"putting {assets:,} assets into {store}"):
            await _fill(settings, corpus)
        for limit in (LIMIT, limits.PAGE_ITEMS_MAX):
            await _searches(table, store, settings, searches, limit)
        for name, some in questions.items():
            reader = open_reader(settings)
            table.add(spread(PART, name, store, await _waits(reader, some, reader.find)))
            await reader.close()
        await own.drop(settings)


async def _fill(settings: Settings, corpus: Corpus) -> None:
    store = await open_store(settings)
    blocks = corpus.blocks()
    while some := list(itertools.islice(blocks, BLOCKS_AT_ONCE)):
        await store.project(some)
    await store.close()


async def _searches(
    table: Table, store: str, settings: Settings, searches: dict[str, list[str]], limit: int
) -> None:
    reader = open_reader(settings)
    by_kind = {
        kind: await _waits(reader, texts, lambda text: reader.search_assets(text, limit))
        for kind, texts in searches.items()
    }
    everywhere = await _waits(reader, [EVERYWHERE], lambda text: reader.search_assets(text, limit))
    await reader.close()
    everything = [wait for waits in by_kind.values() for wait in waits]
    # Somebody who searches looks at ten; a page of ten thousand is for programs.
    below = {"p95": P95_MS_MAX} if limit == LIMIT else None
    table.add(spread(PART, f"search, the mix, limit {limit:,}", store, everything, below))
    for kind, waits in by_kind.items() if limit == LIMIT else ():
        table.add(spread(PART, f"search, {kind}, limit {limit:,}", store, waits)[:2])
    table.add(spread(PART, f"search, a word of every asset, limit {limit:,}", store, everywhere)[:1])


async def _waits(
    reader: QueryStore, questions: Sequence[Any], ask: Callable[[Any], Awaitable[Any]]
) -> list[float]:
    """How long each one waits, in ms, one after the other. Nearly all must find something."""
    await reader.height()  # The connection is made before.
    waits, empty = [], 0
    for question in questions:
        began = time.perf_counter()
        found = await ask(question)
        waits.append((time.perf_counter() - began) * 1000)
        empty += not getattr(found, "documents", found)
    # An exclusion may leave nothing of a small corpus.
    assert empty <= len(waits) // 2, f"{empty} of {len(waits)} questions found nothing, e.g. {questions[0]}"
    return waits
