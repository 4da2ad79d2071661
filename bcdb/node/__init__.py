"""The node process: ledger and consensus engine behind a local socket, and how its workers speak to it.

Workers use `bcdb.node.link` and `bcdb.node.reading`; only the node process itself opens the ledger for
writing.
"""
