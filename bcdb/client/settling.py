"""Waiting until a transaction is settled, at whichever node can tell.

Pending and rejected are known only to the node that accepted it, committed to all. So where one node does
not know a transaction the others are asked, and when none knows it that one gets it again: a ledger takes the
same transaction only once, however many nodes accepted it.
"""

from bcdb.client.errors import NotAllowed, NotFound, NotSettled, error_of, refusal
from bcdb.client.reading import read
from bcdb.client.results import TransactionStatus
from bcdb.client.steps import API, TRY_S_MIN, Node, Pause, Reply, Response, Road, Steps
from bcdb.model import limits
from bcdb.model.errors import BcdbError, DoubleSpend, DuplicateTransaction, InputDoesNotExist

POLL_S_FIRST = 0.02
POLL_S_MAX = 0.5
LOOK_S_MAX = 3.0
"""How long one of several nodes may take to say what it knows."""
POST_AGAIN_S_MAX = limits.WRITE_WAIT_S_MAX + LOOK_S_MAX


def status_path(transaction_id: str) -> str:
    """`transaction_id` must be fit for a path."""
    return f"{API}/transactions/{transaction_id}/status"


def may_differ(error: BcdbError) -> bool:
    """Whether another node may judge otherwise: it has its own reservations, height and writers."""
    return isinstance(error, DoubleSpend | InputDoesNotExist | NotAllowed)


def settle(
    road: Road,
    transaction_id: str,
    *,
    timeout_s: float,
    content: bytes | None = None,
    refused: BcdbError | None = None,
) -> Steps[TransactionStatus]:
    """The status of a committed transaction, once it is that.

    `content` is the transaction, if it may be posted again. `refused`: a node has refused it, while another
    one may have accepted it. Raises the error for which it was rejected, and `NotSettled` at the end of the
    time; when all nodes say that they do not know it, what they refused it for, or `NotFound`.
    """
    deadline = road.clock() + timeout_s
    pause = POLL_S_FIRST
    while True:
        found, asked, all_asked = yield from _look(road, transaction_id, deadline)
        if found is not None and found.status == "committed":
            return found
        if found is not None and found.status == "rejected":
            error = found.error
            raise refusal(error.name, error.text) if error else refusal("ValidationError", "rejected")
        if found is None:
            if all_asked and refused is not None:
                raise refused
            if content is not None:
                refused = yield from _post_again(road, asked, content)
            elif all_asked:
                raise NotFound(f"No node knows the transaction {transaction_id}.")
        if road.clock() + pause >= deadline:
            why = f" A node refuses it: {refused.text}" if refused is not None else ""
            raise NotSettled(f"Transaction {transaction_id} is not settled after {timeout_s:g} s.{why}")
        yield Pause(pause)
        pause = min(pause * 1.5, POLL_S_MAX)


def _look(
    road: Road, transaction_id: str, deadline: float
) -> Steps[tuple[TransactionStatus | None, Node, bool]]:
    """What a node knows of the transaction; None if none does that answers.

    Also the node that was asked first, and whether all nodes have been asked. None of them need wait for a
    block: what it knows now is the question.
    """
    path = status_path(transaction_id)
    left_s = max(deadline - road.clock(), TRY_S_MIN)
    first = yield from road.travel("GET", path, carries=False, timeout_s=left_s, try_s_max=LOOK_S_MAX)
    if first.response.status != 404:
        return _status(road, first), first.node, False
    all_asked = True
    others = road.rested(but=first.node)
    for node in others:
        outcome = yield from road.ask(node, "GET", path, carries=False, timeout_s=LOOK_S_MAX)
        if isinstance(outcome, Response) and outcome.status == 200:
            return _status(road, Reply(outcome, node)), first.node, False
        all_asked = all_asked and isinstance(outcome, Response) and outcome.status == 404
    return None, first.node, all_asked and len(others) == len(road.nodes) - 1


def _status(road: Road, reply: Reply) -> TransactionStatus:
    found = read(reply, TransactionStatus)
    if found.height is not None:
        road.learn(reply.node, found.height)
    return found


def _post_again(road: Road, node: Node, content: bytes) -> Steps[BcdbError | None]:
    """Give the transaction to a node that does not know it; the refusal if another may judge otherwise.

    An answer that is lost, or "later", is no answer: who waits looks again and comes back.
    """
    outcome = yield from road.ask(
        node,
        "POST",
        f"{API}/transactions",
        arguments={"mode": "async"},
        content=content,
        timeout_s=POST_AGAIN_S_MAX,
    )
    if not isinstance(outcome, Response) or outcome.status in (429, 503) or 200 <= outcome.status < 300:
        return None
    error = error_of(outcome.status, outcome.content)
    if isinstance(error, DuplicateTransaction):
        return None
    if may_differ(error):
        return error
    raise error
