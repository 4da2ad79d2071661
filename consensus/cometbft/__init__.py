"""CometBFT as the engine: its application socket (ABCI 2.0), its RPC, its process and its files.

Nothing here knows what is ordered; `consensus.engine` is the contract to both sides.
"""
