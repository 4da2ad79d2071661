"""What the projector counts for Prometheus, in the folder that all processes of a node share.

The API workers add these to what they tell, so a counter goes on when the projector is started again. Names
and labels never come from what is stored.
"""

from prometheus_client import Counter

from query.projector import Progress

TRANSACTIONS = Counter("bcdb_projected_transactions", "Transactions copied into the query store")
DOCUMENTS = Counter("bcdb_projected_documents", "Documents copied into the query store")
BATCHES = Counter("bcdb_projection_batches", "Writes into the query store")
SECONDS = Counter("bcdb_projection_store_seconds", "Time in which the query store was busy with writes")
REBUILDS = Counter("bcdb_projection_rebuilds", "Times that the query store was dropped and begun anew")
FAILURES = Counter("bcdb_projection_store_failures", "Times that the query store did not do what was asked")


def count_progress(progress: Progress) -> None:
    """One batch is in the store."""
    TRANSACTIONS.inc(progress.transactions)
    DOCUMENTS.inc(progress.documents)
    SECONDS.inc(progress.seconds)
    BATCHES.inc()


def count_rebuild(reason: str) -> None:
    """The store was dropped. The reason is in the log, not in the figures."""
    REBUILDS.inc()


def count_failure(text: str) -> None:
    """The store was away or refused; the projector tries again."""
    FAILURES.inc()
