"""Ordering: bytes in, agreed blocks of bytes out. Knows nothing of transactions, assets or storage."""
