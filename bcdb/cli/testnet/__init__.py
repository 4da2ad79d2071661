"""`bcdb testnet`: the nodes of a whole network on one machine, for developers, tests and benchmarks.

Each of them is a node like any other, in a home of its own; nothing here does what an operator could not do
by hand. A network of several machines is made with `bcdb network`.
"""
