"""What can go wrong with a query store, each with a sentence for a person."""


class QueryError(Exception):
    """Root of all errors of a query store. `text` is a sentence for a person."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class InvalidSearch(QueryError):
    """The question can't be answered: it is too long, wants too much, or more than this store offers."""


class InvalidCursor(QueryError):
    """The cursor of a question was not made by this store, or for another question."""


class SearchTimeout(QueryError):
    """The question is too broad to be answered within `SEARCH_S_MAX`."""


class StoreUnavailable(QueryError):
    """The store is missing, being rebuilt, or in trouble with its disk. Ask again later."""


class StoreDamaged(StoreUnavailable):
    """What the store has on its disk is not what it wrote: nothing of it may be trusted."""


class ProjectionGap(QueryError):
    """The blocks handed to `project` do not go on where the store's checkpoint ends."""
