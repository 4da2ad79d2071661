"""The HTTP interface, against a real ledger, node service and query store in the process of the tests."""
