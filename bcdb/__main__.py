"""`python -m bcdb`: the same as the console script `bcdb`."""

from bcdb.cli import main

if __name__ == "__main__":
    main()
