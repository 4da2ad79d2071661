"""Which regular expressions may be asked for: those whose cost has a bound, on any text whatsoever.

Databases match by backtracking, look at their clock only between documents, and take an expression that grew
too costly for one that does not match. Seen with MongoDB 6.0: `a*b` on one text of a million characters ran
for five minutes, past every time limit. So the cost is reckoned here, and long texts are left out of what
would be too costly on them. Nothing here may let through what was not reckoned.
"""

from typing import NoReturn

import msgspec

from query.errors import InvalidSearch

PATTERN_CHARS_MAX = 256
REPEAT_MAX = 1_000
"""What `{m,n}` may say."""
NARROW_MAX = 32
"""A quantifier that goes further than this counts as one without a bound."""
WIDE_MAX = 2
"""Quantifiers without bound one behind the other, plus one if the expression may begin anywhere in a text."""
STEPS_MAX = 256
"""Steps at one place of a text, the quantifiers without bound left out."""
CHOICES_MAX = (33, 33, 4)
"""Ways to try one part again for another, by the number that `WIDE_MAX` bounds."""
TEXT_CHARS_MAX = (None, 50_000, 500)
"""Longer texts never match, by the number that `WIDE_MAX` bounds; without a quantifier without bound all may.

Measured: the worst that is allowed takes some seconds on a document of 1 MB.
"""
GROUP_DEPTH_MAX = 10
OPTIONS = "ims"

_CLASSES = frozenset("dDwWsS")
_PLACES = frozenset("bBAzZ")
_CONTROLS = frozenset("tnrf")
_NAMED = ("alnum", "alpha", "blank", "digit", "lower", "punct", "space", "upper", "word", "xdigit")
_HEX = frozenset("0123456789abcdefABCDEF")


class Checked(msgspec.Struct, frozen=True):
    """A pattern that is allowed; it may be matched with texts of at most `chars_max` characters."""

    pattern: str
    chars_max: int | None

    @property
    def bounded(self) -> str:
        """The pattern as PCRE is to have it: with what keeps it from texts that are too long."""
        if self.chars_max is None:
            return self.pattern
        return rf"\A(?=[\s\S]{{0,{self.chars_max}}}+\z)[\s\S]*?(?:{self.pattern})"


def check_regex(pattern: str, options: str, where: str) -> Checked:
    """What of a pattern is allowed under these options; `where` says in a sentence whose it is.

    Raises `InvalidSearch`, which names what is not allowed.
    """
    if len(pattern) > PATTERN_CHARS_MAX:
        raise InvalidSearch(f"{where}: an expression has at most {PATTERN_CHARS_MAX} characters")
    reader = _Reader(pattern, options, where)
    cost = reader.alternatives(0)
    if reader.at < len(pattern):
        reader.refuse("a ) without a (")
    degree = cost.wide + (not cost.anchored)
    if degree > WIDE_MAX and cost.wide:
        reader.refuse(
            f"more than 2 quantifiers without bound (*, +, {{m,}}, above {NARROW_MAX}) one behind the other, "
            "or more than 1 in what does not begin with ^,"
        )
    if cost.steps > STEPS_MAX or cost.choices > CHOICES_MAX[degree]:
        reader.refuse("so many alternatives and quantifiers one behind the other")
    return Checked(pattern, TEXT_CHARS_MAX[degree] if cost.wide else None)


class _Cost(msgspec.Struct):
    """What a part costs at one place of a text: its steps, the ways in which it can match, and quantifiers
    without bound. `first`: the character that it must begin with, if that is known.
    """

    steps: int = 0
    choices: int = 1
    wide: int = 0
    anchored: bool = False
    first: str | None = None


class _Reader:
    """Goes through one pattern once."""

    def __init__(self, pattern: str, options: str, where: str) -> None:
        self._pattern = pattern
        self._lines = "m" in options
        self._where = where
        self.at = 0

    def refuse(self, what: str) -> NoReturn:
        raise InvalidSearch(
            f"{self._where}: {what} is not allowed (at character {self.at + 1} of the expression)"
        )

    def _next(self) -> str:
        """The next character, empty at the end."""
        return self._pattern[self.at : self.at + 1]

    def alternatives(self, depth: int) -> _Cost:
        if depth > GROUP_DEPTH_MAX:
            self.refuse(f"a group more than {GROUP_DEPTH_MAX} deep")
        branches = [self._sequence(depth)]
        while self._next() == "|":
            self.at += 1
            branches.append(self._sequence(depth))
        if len(branches) == 1:
            return branches[0]
        firsts = [branch.first for branch in branches]
        # At most one branch can match where all begin with another character.
        apart = None not in firsts and len(set(firsts)) == len(firsts)
        choices = [branch.choices for branch in branches]
        return _Cost(
            sum(branch.steps + 1 for branch in branches),
            max(choices) if apart else sum(choices),
            max(branch.wide for branch in branches),
            all(branch.anchored for branch in branches),
        )

    def _sequence(self, depth: int) -> _Cost:
        total = _Cost()
        start = True
        while (char := self._next()) and char not in "|)":
            item = self._item(char, depth)
            if start:
                total.anchored, total.first = item.anchored, item.first
            start = False
            total.steps += total.choices * item.steps
            total.choices *= item.choices
            total.wide += item.wide
        return total

    def _item(self, char: str, depth: int) -> _Cost:
        """An atom with its quantifier."""
        if char == "(":
            return self._group(depth)
        if char in "^$":
            self.at += 1
            self._refuse_quantifier("an anchor")
            return _Cost(1, anchored=char == "^" and not self._lines)
        first: str | None = None
        if char == "[":
            self._class()
        elif char == "\\":
            escaped, first = self._escape(in_class=False)
            if escaped in _PLACES:
                self._refuse_quantifier("an anchor")
                return _Cost(1, anchored=escaped == "A")
        elif char in "*+?":
            self.refuse(f"a {char} with nothing before it that it could repeat")
        elif char == "{":
            self.refuse(r"a { with nothing before it that it could repeat (a brace itself is \{)")
        elif char == "\0":
            self.refuse("the character 0")
        else:
            self.at += 1
            first = None if char == "." else char.lower()
        return self._repeated(first)

    def _group(self, depth: int) -> _Cost:
        self.at += 1
        if self._next() == "*":
            self.refuse("(*")
        if self._next() == "?":
            if self._pattern[self.at : self.at + 2] != "?:":
                self.refuse("what begins with (? other than (?: - look-around, flags, names, conditions -")
            self.at += 2
        cost = self.alternatives(depth + 1)
        if self._next() != ")":
            self.refuse("a ( without a )")
        self.at += 1
        self._refuse_quantifier("a group")
        return cost

    def _refuse_quantifier(self, what: str) -> None:
        if self._next() and self._next() in "*+?{":
            self.refuse(f"a quantifier on {what}")

    def _repeated(self, first: str | None) -> _Cost:
        """The cost of an atom with the quantifier that follows, if one does."""
        char = self._next()
        if not char or char not in "*+?{":
            return _Cost(1, first=first)
        least, most = self._bounds(char)
        if self._next() and self._next() in "?+":
            self.at += 1
        if self._next() and self._next() in "*+?{":
            self.refuse("a quantifier on a quantifier")
        if least == 0:
            first = None
        if most is None or most > NARROW_MAX:
            return _Cost(1, wide=1, first=first)
        return _Cost(most + 1, most - least + 1, first=first)

    def _bounds(self, char: str) -> tuple[int, int | None]:
        """What a quantifier says: at least, and at most if it does."""
        if char != "{":
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        end = self._pattern.find("}", self.at)
        least, comma, most = self._pattern[self.at + 1 : end].partition(",")
        said = [least, most] if most else [least]
        if end < 0 or not all(each.isascii() and each.isdigit() for each in said):
            self.refuse(r"a { that begins none of {m}, {m,} and {m,n} (a brace itself is \{)")
        numbers = [int(each) for each in said]
        if max(numbers) > REPEAT_MAX or numbers != sorted(numbers):
            self.refuse(f"{{m,n}} with more than {REPEAT_MAX:,} or with m above n")
        self.at = end + 1
        return numbers[0], None if comma and not most else numbers[-1]

    def _escape(self, *, in_class: bool) -> tuple[str, str | None]:
        r"""What stands behind a backslash, and the one character that it means, None if it means others."""
        self.at += 1
        char = self._next()
        if not char:
            self.refuse(r"a \ at the end")
        if char == "x":
            code = self._pattern[self.at + 1 : self.at + 3]
            if len(code) < 2 or set(code) - _HEX or code == "00":
                self.refuse(r"\x without two hexadecimal digits, or with none but 0,")
            self.at += 3
            return "x", chr(int(code, 16)).lower()
        if char.isascii() and not char.isalnum() and char != "\0":
            self.at += 1
            return char, char
        if char not in _CLASSES | _CONTROLS and (in_class or char not in _PLACES):
            self.refuse(rf"\{char}")
        self.at += 1
        return char, {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(char)

    def _class(self) -> None:
        """A class of characters, from [ to ]."""
        self.at += 1
        if self._next() == "^":
            self.at += 1
        if self._next() == "]":
            self.refuse(r"[] (a bracket itself is \])")
        if self._next() and self._next() in ":.=":
            self.refuse(rf"[{self._next()} (the character itself is \{self._next()})")
        while (char := self._next()) != "]":
            if not char:
                self.refuse("a [ without a ]")
            low = self._member(char)
            if (
                self._pattern[self.at : self.at + 1] == "-"
                and self._pattern[self.at + 1 : self.at + 2] != "]"
            ):
                self.at += 1
                high = self._member(self._next()) if self._next() else None
                if low is None or high is None or low > high:
                    self.refuse(r"a range whose ends are not characters in order (a dash itself is \-)")
        self.at += 1

    def _member(self, char: str) -> str | None:
        """One member of a class: the character that it is, None if it is a class itself."""
        following = self._pattern[self.at + 1 : self.at + 2]
        if char == "[" and following and following in ":.=":
            end = self._pattern.find(":]", self.at)
            name = self._pattern[self.at + 2 : end]
            if following != ":" or end < 0 or name not in _NAMED:
                self.refuse("a named class other than [:" + ":], [:".join(_NAMED) + ":]")
            self.at = end + 2
            return None
        if char == "\\":
            escaped, meant = self._escape(in_class=True)
            if escaped == "x":
                return chr(int(self._pattern[self.at - 2 : self.at], 16))
            return meant
        if char == "\0":
            self.refuse("the character 0")
        self.at += 1
        return char
