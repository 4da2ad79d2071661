"""bcdb: a permissioned blockchain database server.

Packages, from the bottom up: `model`, `ledger`, `node`, then `http`, `client` and `cli`.
"""

__version__ = "0.1.0"
