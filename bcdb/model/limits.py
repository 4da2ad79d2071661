"""Every limit of bcdb, in one place, with its unit last in the name.

The first group decides validity, so all validators of a chain must agree on it: a change there raises
`VERSION`. The second group bounds one node's queues and requests and is the node's own business.
"""

VERSION = 1
"""Version of the validity limits; results of verification are remembered together with it."""

# --- validity: the same on every validator ---
TRANSACTION_BYTES_MAX = 1024 * 1024
JSON_DEPTH_MAX = 64
JSON_VALUES_MAX = 50_000
"""Values of a document: reading a value costs some microseconds, so bytes alone do not bound the time."""
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
JAVASCRIPT_INTEGER_MAX = 2**53 - 1
INPUTS_MAX = 1_000
OUTPUTS_MAX = 1_000
OWNERS_MAX = 1_000
"""Entries of one `owners_before` or `public_keys` list."""
SIGNATURES_MAX = 1_000
"""Signatures that one transaction may carry in all its fulfillments."""
CONDITION_NODES_MAX = 1_000
"""Conditions, nested ones counted, in one output or fulfillment."""
CONDITION_DEPTH_MAX = 16
THRESHOLD_MAX = 100
FULFILLMENT_CHARS_MAX = 256 * 1024
CONDITION_URI_CHARS_MAX = 256
AMOUNT_MAX = 9 * 10**18
OUTPUT_INDEX_MAX = OUTPUTS_MAX - 1
KEY_CHARS_MAX = 44
JSON_KEY_CHARS_MAX = 1_024
"""Length of a key name inside `asset.data` and `metadata`."""

# --- bundles and blocks: parameters of the chain ---
BUNDLE_BYTES_MAX = 2 * 1024 * 1024
BUNDLE_TRANSACTIONS_MAX = 2_000
BUNDLE_SIGNATURES_MAX = 4_000
BLOCK_BYTES_MAX = 4 * BUNDLE_BYTES_MAX
BLOCK_TRANSACTIONS_MAX = 4 * BUNDLE_TRANSACTIONS_MAX
BLOCK_SIGNATURES_MAX = 4 * BUNDLE_SIGNATURES_MAX
"""Verifying a full block must take less than a third of the time that validators give a proposal."""
CHAIN_ID_CHARS_MAX = 50

# --- one node's own bounds ---
WAL_BYTES_MAX = 256 * 1024 * 1024
WAL_ENTRIES_MAX = 100_000
REJECTED_HEIGHTS_KEPT = 100_000
MEMBERS_MAX = 128
"""Nodes in the members' file."""
SUBMITTER_QUOTA_MB = 8
"""MiB of one member's bundles that may wait at this node, unless the members' file says otherwise."""
SUBMITTER_QUOTA_MB_MIN = 4
"""Room for two of the largest bundles."""
SUBMITTER_QUOTA_MB_MAX = 256
SUBMITTER_BUNDLES_MAX = 256
"""Bundles of one member that may wait at this node, whatever their size."""
BUNDLES_IN_FLIGHT_MAX = 16
"""Bundles of this node that wait for a block of CometBFT at a time; with the embedded engine it is one."""
VERIFIED_CACHE_ENTRIES_MAX = 50_000
VERIFIED_CACHE_BYTES_MAX = 128 * 1024 * 1024
FRAME_BYTES_MAX = 64 * 1024 * 1024
LINKS_MAX = 1_024
"""Connections to the node process's socket."""
LINK_OUTPUT_BYTES_MAX = 32 * 1024 * 1024
"""Bytes that may wait for one worker before the node cuts it off."""
LINK_SUBMITS_MAX = 50_000
"""Transactions of one worker that may wait for the node's answer."""
LINK_REQUESTS_MAX = 50_000
"""Questions and waiters for an outcome that one worker may have open."""
PAGE_ITEMS_DEFAULT = 1_000
PAGE_ITEMS_MAX = 10_000
PAGE_BYTES_MAX = 16 * 1024 * 1024
"""A page ends early when the transactions in it have passed this."""
PAGE_ROWS_MAX = 100_000
"""A page of the outputs of a key in the past ends early when so many were looked at."""
READINGS_OPEN_MAX = 16
"""Answers of one worker that take so long to gather that they are made in slices."""
BATCH_BYTES_MAX = 64 * 1024 * 1024
BATCH_ITEMS_MAX = 10_000
BATCH_IN_FLIGHT_MAX = 2_000
"""Items of one batch that may wait for the node at a time."""
BATCHES_PER_WORKER_MAX = 32
COMMIT_WAIT_S_MAX = 10.0
WRITE_WAIT_S_MAX = 5.0
"""A write waits so long for the block `min_height`."""
WAITING_WRITES_MAX = 1_000
"""Writes of one worker that wait so; nothing of their bodies is read before."""
SEARCH_WAIT_S_MAX = 2.0
SEARCH_TEXT_CHARS_MAX = 1_024
QUESTION_BYTES_MAX = 64 * 1024
"""Body of a question to the query store."""
QUESTION_S_MAX = 10.0
"""A query store that takes longer over one request is away; its own bounds end a question before."""
QUESTIONS_AT_ONCE_MAX = 8
"""Questions of one worker that the query store answers at a time."""
QUESTIONS_OPEN_MAX = 256
"""Those, and all that wait: for their turn or for the store to have a height."""
QUESTION_QUEUE_S_MAX = 5.0
"""Waiting for its turn."""
STORE_LOOK_S_MAX = 0.25
"""Health and metrics tell how the query store is only as far as they learn it in this time."""
STREAM_BACKLOG_BLOCKS_MAX = 1_000
"""Blocks a WebSocket reader may fall behind before it is cut off; it resumes with `from_height`."""
STREAMS_PER_WORKER_MAX = 1_000
STREAM_SEND_S_MAX = 30.0
"""A WebSocket reader that takes nothing for so long is cut off."""
REQUEST_HEAD_BYTES_MAX = 64 * 1024
REQUEST_HEAD_S_MAX = 10.0
"""From the first byte of a request to the end of its headers."""
REQUEST_BODY_PAUSE_S_MAX = 30.0
"""Between two pieces of a request's body."""
REQUEST_BODY_BYTES_PER_S_MIN = 8 * 1024
"""What a body must bring on average once it has taken longer than `REQUEST_BODY_PAUSE_S_MAX`."""
REQUEST_DISCARD_BYTES_MAX = 64 * 1024 * 1024
"""What is read and thrown away of a body that was refused unread, so that the client sees the answer."""
ANSWER_PAUSE_S_MAX = 30.0
"""A client that takes nothing of its answer for so long is cut off."""
CONNECTIONS_PER_WORKER_MAX = 10_000
KEEP_ALIVE_S = 65
QUERY_FIELDS_MAX = 100
RATE_SLOTS = 65_536
"""Client addresses that the rate bound tells apart; more share slots."""
STOP_S_MAX = 10.0
