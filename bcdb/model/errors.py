"""Every way in which a transaction, a request or the storage can fail, by name.

The names of the validation errors are part of the HTTP interface: clients of the BigchainDB format read them
in `Invalid transaction (<Name>): <text>`. A decoder of outside bytes raises nothing that is not listed here.
"""

from typing import ClassVar


class BcdbError(Exception):
    """Root of all errors of bcdb. `text` is a sentence for a person: what was expected and what was seen."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def name(self) -> str:
        return type(self).__name__


class ValidationError(BcdbError):
    """The transaction breaks a rule; every node that reads the same bytes in the same state says the same."""

    by_name: ClassVar[dict[str, type["ValidationError"]]] = {}

    def __init_subclass__(cls) -> None:
        ValidationError.by_name[cls.__name__] = cls

    @property
    def message(self) -> str:
        """The sentence of an HTTP 400, worded as the reference words it."""
        return f"Invalid transaction ({self.name}): {self.text}"

    @staticmethod
    def restore(name: str, text: str) -> "ValidationError":
        """Make the error again from what `name` and `text` said, as read from a frame or a stored record."""
        return ValidationError.by_name.get(name, ValidationError)(text)


ValidationError.by_name["ValidationError"] = ValidationError


class SchemaValidationError(ValidationError):
    """The document has not the shape of a transaction."""

    @property
    def message(self) -> str:
        return f"Invalid transaction schema: {self.text}"


class InvalidJson(ValidationError):
    """The body is not one JSON document, or has what JSON leaves open: doubled keys, NaN, lone surrogates."""

    @property
    def message(self) -> str:
        return self.text


class LimitExceeded(ValidationError):
    """A stated limit (see `bcdb.model.limits`) is passed."""


class InvalidHash(ValidationError):
    """The id is missing or is not the hash of the body."""


class InvalidSignature(ValidationError):
    """A fulfillment can't be read, does not fit its condition, or its signature is wrong."""


class InvalidCondition(ValidationError):
    """An output's condition is misspelt, can't be satisfied, is ambiguous or does not fit its public keys."""


class InvalidPublicKey(ValidationError):
    """A text is not the base58 form of a 32-byte Ed25519 public key."""


class ThresholdTooDeep(ValidationError):
    """Thresholds are nested deeper than the limit."""


class TransactionOwnerError(ValidationError):
    """`owners_before` is not who signed, or not who owns the output that is spent."""


class AmountError(ValidationError):
    """An amount is out of range, or inputs and outputs do not balance."""


class AssetIdMismatch(ValidationError):
    """The inputs do not all belong to the asset that is named."""


class InputDoesNotExist(ValidationError):
    """An input names an output that is not committed."""


class DoubleSpend(ValidationError):
    """An output is spent already, or twice."""


class DuplicateTransaction(ValidationError):
    """A transaction with this id is pending or committed."""


class OperationNotSupported(ValidationError):
    """The operation is known by name, but this version has no rules for it."""


class BundleError(BcdbError):
    """A consensus transaction is not a well-formed, signed bundle of this chain."""


class InvalidCursor(BcdbError):
    """A paging cursor was not made by this server."""


class NotAllowed(BcdbError):
    """This node does not take what this issuer issued (HTTP 403): its own door, not a rule of the chain."""


class Overloaded(BcdbError):
    """A bounded queue is full. Nothing was stored; try again later (HTTP 429)."""


class Unavailable(BcdbError):
    """The part that should answer is stopping, starting or gone (HTTP 503)."""


class StoreError(BcdbError):
    """The ledger's directory can't be opened: format, chain id or lock."""


class StorageFailed(BcdbError):
    """A write or an fsync failed. The node takes nothing more and ends; nothing is retried."""


class SettingsError(BcdbError):
    """A setting is unknown or has a value that can't be used."""


class InvalidPrivateKey(BcdbError):
    """A private key that was given to sign with is not the base58 form of 32 bytes."""
