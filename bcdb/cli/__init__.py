"""The `bcdb` command: runs and inspects nodes, makes keys, sends transactions.

What it prints goes through `bcdb.cli.screen`; it never prints a private key.
"""


def main() -> None:
    """Entry point of the console script."""
    from bcdb.cli.app import app

    app(prog_name="bcdb")
