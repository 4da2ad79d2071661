"""The language of text search: which terms a document has, and what a search text asks for.

Both follow MongoDB's `$text` on an English wildcard index (checked against a real mongod, see
tests/query/test_text.py), so that the embedded store finds what MongoDB finds. Nothing here may fail on any
text. Source of the rules: MongoDB's manual, "$text" and "Text Index Tokenization"; its stemmer and stop
words.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from query.characters import FOLD, LOWER, STRIP, split_words
from query.stemmer import stem
from query.stopwords import STOP_WORDS

VERSION = 1
"""Version of the terms. A store whose terms were made by another version is rebuilt."""
TERM_CHARS_MAX = 128
"""Longer terms are stored as their beginning and a hash: they are found all the same, whole."""
MEMO_TERMS_MAX = 100_000
MEMO_WORD_CHARS_MAX = 32

LANGUAGE_KEY = "language"
"""MongoDB reads the language of a subdocument from this key and does not index what stands there."""

_ASCII_DELIMITERS = '\t\n\v\f\r !"#$%&()*+,-./:;<=>?@[\\]^`{|}~'
_ASCII_WORDS = bytes.maketrans(_ASCII_DELIMITERS.encode(), b" " * len(_ASCII_DELIMITERS))
_QUERY_PARTS = re.compile(r'(?P<white>[ \n\v\f\r]+)|(?P<mark>[-"])|(?P<text>[^ \n\v\f\r"-]+)')
_EMPTY_TERM = chr(0x10E000)
# The store's tokenizer takes letters, digits and everything beyond ASCII as part of a term and folds
# capitals. So other ASCII characters of a term get a stand-in from a private plane of Unicode; capitals too,
# as MongoDB keeps the one that is left of a dotted capital I.
_STAND_INS = {
    code: chr(0x10E000 + code) for code in range(1, 128) if not (chr(code).islower() or chr(code).isdigit())
}


class Search(msgspec.Struct, frozen=True):
    """What a search text asks for.

    A document matches if it has one of `terms`, none of `excluded_terms`, each of `phrases` within one of its
    strings and none of `excluded_phrases`. Phrases are folded (see `fold`). Terms are sorted and unique.
    """

    terms: tuple[str, ...]
    excluded_terms: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    excluded_phrases: tuple[str, ...] = ()

    @property
    def excluded_common_terms(self) -> frozenset[str]:
        """Excluded terms that stop words have too (`-owns` excludes "own"), so that no index tells them."""
        return _STOP_WORD_TERMS.intersection(self.excluded_terms)

    @property
    def needs_strings(self) -> bool:
        """Whether a document's terms do not tell if it matches: then `strings_match` decides."""
        return bool(self.phrases or self.excluded_phrases or self.excluded_common_terms)

    def strings_match(self, texts: Sequence[str]) -> bool:
        """Whether a document with these strings fits the phrases and has no excluded common term."""
        folded = [fold(text) for text in texts]
        if not all(any(phrase in text for text in folded) for phrase in self.phrases):
            return False
        if any(phrase in text for phrase in self.excluded_phrases for text in folded):
            return False
        common = self.excluded_common_terms
        return not common or common.isdisjoint(_term(word) for word in _words("\n".join(texts)) if word)


class _Memo(dict[str, str]):
    """Lower-case word to term, "" for a stop word; bounded, and filled at the first sight of a word."""

    def __missing__(self, word: str) -> str:
        result = "" if word in STOP_WORDS else _term(word)
        # Numbers and identifiers are seldom seen twice.
        if len(word) <= MEMO_WORD_CHARS_MAX and word.isalpha():
            if len(self) >= MEMO_TERMS_MAX:
                self.clear()
                self[""] = ""
            self[word] = result
        return result


def _term(word: str) -> str:
    result = stem(word)
    if not (result.isascii() and result.isalnum()):
        result = result.translate(STRIP).translate(_STAND_INS) or _EMPTY_TERM
    if len(result) > TERM_CHARS_MAX:
        digest = hashlib.sha256(result.encode("utf-8", "surrogatepass")).hexdigest()
        result = result[: TERM_CHARS_MAX - len(digest)] + digest
    return result


_memo = _Memo({"": ""})
_term_of = _memo.__getitem__
_STOP_WORD_TERMS = frozenset(map(_term, STOP_WORDS))


def terms_of(texts: Iterable[str]) -> str:
    """The terms of a document's strings, with repetitions, in no promised order, with blanks between."""
    return " ".join(filter(None, map(_term_of, _words("\n".join(texts)))))


def _words(text: str) -> list[str]:
    if text.isascii():
        # Four times as fast as a regular expression; "" comes out where delimiters meet.
        return text.lower().encode().translate(_ASCII_WORDS).decode().split(" ")
    return split_words(text.translate(LOWER))


def fold(text: str) -> str:
    """`text` in lower case and without diacritics, as phrases are compared."""
    if text.isascii():
        text = text.lower()
        return text.translate(STRIP) if "^" in text or "`" in text else text
    return text.translate(FOLD)


def strings_in(document: Any) -> list[str]:
    """All strings among the values of a JSON value, at any depth; not keys, numbers, booleans.

    Like MongoDB it passes over what stands under a key `language`, and over what follows a NUL in a string.
    """
    found: list[str] = []
    waiting = [document]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is str:
            found.append(value if "\0" not in value else value.partition("\0")[0])
        elif kind is dict:
            if LANGUAGE_KEY in value:
                value = {key: inner for key, inner in value.items() if key != LANGUAGE_KEY}
            waiting.extend(value.values())
        elif kind is list:
            waiting.extend(value)
    return found


def parse(text: str) -> Search:
    """Read a search text.

    Words are ORed. `"a phrase"` must occur as it stands. `-` after a blank excludes what follows up to the
    next blank, a word or a phrase. A quote that is not closed counts for nothing.
    """
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no character
    wanted: list[str] = []
    unwanted: list[str] = []
    phrases: list[str] = []
    excluded_phrases: list[str] = []
    negated = in_phrase = False
    phrase_start = 0
    after_blank = True
    for part in _QUERY_PARTS.finditer(text):
        kind, content = part.lastgroup, part.group()
        if kind == "white":
            after_blank = True
            continue
        if kind == "text":
            if not (in_phrase and negated):
                negated = negated and not after_blank
                (unwanted if negated else wanted).append(content)
        elif content == "-":
            negated = negated or (after_blank and not in_phrase)
        elif in_phrase:
            in_phrase = False
            (excluded_phrases if negated else phrases).append(fold(text[phrase_start : part.start()]))
        else:
            in_phrase = True
            negated = negated and not after_blank
            phrase_start = part.end()
        after_blank = False
    return Search(
        _query_terms(wanted), _query_terms(unwanted), tuple(set(phrases)), tuple(set(excluded_phrases))
    )


def _query_terms(parts: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(terms_of([" ".join(parts).partition("\0")[0]]).split())))
