"""The Snowball English stemmer ("Porter2"), in the version that MongoDB's text index is built with (2.0).

Written out here because stored terms must never change under a store: later releases of the stemming
libraries stem some words otherwise (`university`, `adding`), and MongoDB does not follow them. Source: the
algorithm's description at snowballstem.org, "The English (Porter2) stemming algorithm".
"""

import re

_WHOLE_WORDS = {
    "skis": "ski",
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "idly": "idl",
    "gently": "gentl",
    "ugly": "ugli",
    "early": "earli",
    "only": "onli",
    "singly": "singl",
} | {word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")}
_DONE_AFTER_STEP_1A = frozenset(
    ("inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed")
)

_LAST_OF_ENDINGS = frozenset("'cdegilmnrsty")
"""The last characters of all endings below: a word that ends otherwise has none of them."""

_VOWEL = "aeiouy"
_HAS_VOWEL = re.compile(f"[{_VOWEL}]").search
_REGION = re.compile(f"[{_VOWEL}][^{_VOWEL}]").search
_REGION_PREFIX = re.compile("gener|commun|arsen").match
_SHORT_END = re.compile(f"(?:[^{_VOWEL}][{_VOWEL}][^{_VOWEL}wxY]|^[{_VOWEL}][^{_VOWEL}])$").search
_DOUBLES = frozenset(("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"))
_BEFORE_LI = frozenset("cdeghkmnrt")

_STEP_2 = {
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "abli": "able",
    "entli": "ent",
    "izer": "ize",
    "ization": "ize",
    "ational": "ate",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "aliti": "al",
    "alli": "al",
    "fulness": "ful",
    "ousli": "ous",
    "ousness": "ous",
    "iveness": "ive",
    "iviti": "ive",
    "biliti": "ble",
    "bli": "ble",
    "ogi": "og",
    "fulli": "ful",
    "lessli": "less",
    "li": "",
}
_STEP_3 = {
    "tional": "tion",
    "ational": "ate",
    "alize": "al",
    "icate": "ic",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
    "ative": "",
}
_STEP_4_ENDINGS = "al ance ence er ic able ible ant ement ment ent ism ate iti ous ive ize ion"
_STEP_4 = frozenset(_STEP_4_ENDINGS.split())


def stem(word: str) -> str:
    """The stem of a lower-case word. Letters beyond a-z count as consonants and are kept."""
    if len(word) <= 2:
        return word
    # Most numbers and identifiers, and many words, are through here.
    if word[-1] not in _LAST_OF_ENDINGS:
        return word.removeprefix("'")
    whole = _WHOLE_WORDS.get(word)
    if whole is not None:
        return whole
    if word[0] == "'":
        word = word[1:]
    if "y" in word:
        word = _mark_consonant_y(word)
    r1 = _r1(word)
    found = _REGION(word, r1)
    r2 = found.end() if found else len(word)

    word = _step_1a(word)
    if word not in _DONE_AFTER_STEP_1A:
        word = _step_1b(word, r1)
        if word[-1:] in ("y", "Y") and len(word) > 2 and word[-2] not in _VOWEL:
            word = word[:-1] + "i"
        word = _step_2(word, r1)
        word = _step_3(word, r1, r2)
        word = _step_4(word, r2)
        word = _step_5(word, r1, r2)
    return word.replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    """Consonant `y` as `Y`, from left to right: the second one of "sayyid" follows a consonant."""
    letters = list(word)
    for place, letter in enumerate(letters):
        if letter == "y" and (place == 0 or letters[place - 1] in _VOWEL):
            letters[place] = "Y"
    return "".join(letters)


def _r1(word: str) -> int:
    """Where region R1 begins: after the first consonant that follows a vowel."""
    found = _REGION_PREFIX(word) or _REGION(word)
    return found.end() if found else len(word)


def _step_1a(word: str) -> str:
    for ending in ("'s'", "'s", "'"):
        if word.endswith(ending):
            word = word[: -len(ending)]
            break
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _HAS_VOWEL(word, 0, len(word) - 2):
        return word[:-1]
    return word


def _step_1b(word: str, r1: int) -> str:
    for ending in ("eedly", "eed"):
        if word.endswith(ending):
            start = len(word) - len(ending)
            return word[:start] + "ee" if start >= r1 else word
    for ending in ("ingly", "edly", "ing", "ed"):
        if word.endswith(ending):
            rest = word[: -len(ending)]
            if not _HAS_VOWEL(rest):
                return word
            if rest.endswith(("at", "bl", "iz")):
                return rest + "e"
            if rest[-2:] in _DOUBLES:
                return rest[:-1]
            if len(rest) == r1 and _SHORT_END(rest):
                return rest + "e"
            return rest
    return word


def _longest(word: str, endings: dict[str, str] | frozenset[str], longest: int) -> str:
    for length in range(min(longest, len(word)), 1, -1):
        if (ending := word[-length:]) in endings:
            return ending
    return ""


def _step_2(word: str, r1: int) -> str:
    ending = _longest(word, _STEP_2, 7)
    start = len(word) - len(ending)
    if not ending or start < r1:
        return word
    before = word[start - 1 : start]
    if (ending == "li" and before not in _BEFORE_LI) or (ending == "ogi" and before != "l"):
        return word
    return word[:start] + _STEP_2[ending]


def _step_3(word: str, r1: int, r2: int) -> str:
    ending = _longest(word, _STEP_3, 7)
    start = len(word) - len(ending)
    if not ending or start < (r2 if ending == "ative" else r1):
        return word
    return word[:start] + _STEP_3[ending]


def _step_4(word: str, r2: int) -> str:
    ending = _longest(word, _STEP_4, 5)
    start = len(word) - len(ending)
    if not ending or start < r2 or (ending == "ion" and word[start - 1 : start] not in ("s", "t")):
        return word
    return word[:start]


def _step_5(word: str, r1: int, r2: int) -> str:
    start = len(word) - 1
    if word.endswith("e"):
        if start >= r2 or (start >= r1 and not _SHORT_END(word[:-1])):
            return word[:-1]
    elif word.endswith("ll") and start >= r2:
        return word[:-1]
    return word
