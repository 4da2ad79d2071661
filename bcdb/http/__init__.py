"""The API workers: what the reference system speaks over HTTP and WebSocket, and what bcdb adds to it.

A worker keeps nothing that matters: it may be killed and started again at any time. It never decides whether
a transaction is accepted (the node process does) and never shows what is not durable.
"""
