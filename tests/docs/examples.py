"""Reads the examples out of a Markdown page and compares what they print with the answers shown there.

A fence is run if its first line says so: `sh run`, `sh fails` (must end with an error), `python run`,
`js run`. A fence `json answer` or `text answer` right after it is what it prints. `...` stands for what
differs from run to run: in JSON the text "..." for any value, as the last item of a list for further items,
and as a key for further members; in text for the rest of a word or line, and alone on a line for further
lines. Pure: nothing is run here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"sh run", "sh fails", "python run", "js run"}
ANSWERS = {"json answer", "text answer"}
SHOWN = {"text", "toml settings", "nginx", "ini"}
"""Fences that are no commands: sketches of shapes, and files of other programs."""
ANY = "..."


@dataclass(frozen=True)
class Example:
    """A piece of code, the line it begins at, and the answer shown: its kind ("" for none) and text."""

    kind: str
    code: str
    line: int
    answer_kind: str = ""
    answer: str = ""


def fences(page: str) -> list[tuple[str, str, int]]:
    """Info string, text and line number of each fence."""
    return [
        (found["info"].strip(), found["code"], page.count("\n", 0, found.start()) + 1)
        for found in FENCE.finditer(page)
    ]


def examples_of(page: str) -> list[Example]:
    """The examples of a page in order. Raises ValueError for an answer to nothing."""
    found: list[Example] = []
    answerable = False
    for info, text, line in fences(page):
        if info in RUN:
            found.append(Example(info, text, line))
            answerable = True
        elif info in ANSWERS:
            if not answerable:
                raise ValueError(f"line {line}: an answer with nothing that was asked before it")
            asked = found.pop()
            found.append(Example(asked.kind, asked.code, asked.line, info.split()[0], text))
            answerable = False
        else:
            answerable = False
    return found


def difference(example: Example, said: str) -> str:
    """What is wrong with what an example printed, "" if it is as shown."""
    if example.answer_kind == "json":
        try:
            value = json.loads(said)
        except ValueError:
            return f"this is no JSON: {said}"
        return json_difference(json.loads(example.answer), value)
    if example.answer_kind == "text" and not fits_text(example.answer, said):
        return f"printed\n{said}\nand not\n{example.answer}"
    return ""


def json_difference(shown: Any, seen: Any, where: str = "answer") -> str:
    """The first difference of two JSON values, "" if there is none."""
    if shown == ANY:
        return ""
    if isinstance(shown, dict) and isinstance(seen, dict):
        missing = [key for key in shown if key != ANY and key not in seen]
        surplus = [key for key in seen if key not in shown] if ANY not in shown else []
        if missing or surplus:
            return f"{where}: missing {missing}, not shown {surplus} in {seen}"
        differences = (
            json_difference(value, seen[key], f"{where}.{key}") for key, value in shown.items() if key != ANY
        )
        return next(filter(None, differences), "")
    if isinstance(shown, list) and isinstance(seen, list):
        open_end = bool(shown) and shown[-1] == ANY
        wanted = shown[:-1] if open_end else shown
        if len(seen) < len(wanted) or (len(seen) > len(wanted) and not open_end):
            return f"{where}: {len(wanted)} items are shown, {len(seen)} there: {seen}"
        pairs = enumerate(zip(wanted, seen, strict=False))
        differences = (json_difference(one, other, f"{where}[{index}]") for index, (one, other) in pairs)
        return next(filter(None, differences), "")
    return "" if type(shown) is type(seen) and shown == seen else f"{where}: shown {shown!r}, is {seen!r}"


def fits_text(shown: str, seen: str) -> bool:
    """Whether `seen` is the text that is shown, apart from blanks at ends of lines."""
    pattern = ""
    for line in shown.strip().splitlines():
        if line.strip() == ANY:
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*".join(re.escape(part) for part in line.rstrip().split(ANY)) + "\n"
    lines = [line.rstrip() for line in seen.strip().splitlines()]
    return re.fullmatch(pattern, "\n".join(lines) + "\n") is not None
