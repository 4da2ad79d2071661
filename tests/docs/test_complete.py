"""The pages tell of every route, parameter, error, setting, limit, metric, command, option and call.

What there is to tell is read from the code. Whether the examples work is tested in test_examples.py.
"""

from __future__ import annotations

import re

import msgspec
import pytest

from bcdb.client import AsyncClient, Client
from bcdb.client import errors as client_errors
from bcdb.http import params, worker
from bcdb.http.streams import PREFIX as STREAM_PREFIX
from bcdb.http.streams import STREAMS
from bcdb.model import limits
from bcdb.model.errors import ValidationError
from bcdb.node import process
from bcdb.node.settings import ENVIRONMENT_PREFIX, OTHER_VARIABLES, Settings
from tests.support import offers

ROOT = offers.ROOT
PAGES = ("api.md", "client.md", "operating.md")
ANCHOR = re.compile(r"\]\(([\w./-]*)#([\w-]+)\)")


def page(name: str) -> str:
    return (offers.DOCS / name).read_text()


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables of a page by each name in code marks that their first cell has."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `"):
            found.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells))
    return found


def sections(text: str) -> dict[str, str]:
    """What stands below each third-level heading with a route, by the route: `GET /api/v1`."""
    parts = re.split(r"^(#{1,3} .*)$", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {heading.strip("# `"): told for heading, told in found.items()}


def test_every_route_has_a_section_with_its_parameters_and_answers() -> None:
    text = page("api.md")
    told = sections(text)
    # What two neighbouring routes share is told once, below the second.
    told["GET /api/v1/assets"] += told["GET /api/v1/metadata"]
    everywhere = {"200", "400", "404", "429", "503"}
    missing = []
    for (path, method), operation in offers.routes().items():
        section = told.get(f"{method} {path}", "")
        names = [item["name"] for item in operation.get("parameters", []) if item["in"] == "query"]
        statuses = operation["responses"].keys() - everywhere
        missing += [f"{method} {path}"] * (not section)
        missing += [f"{method} {path} {name}" for name in names if f"`{name}`" not in section]
        missing += [f"{method} {path} {status}" for status in statuses if f"| {status} |" not in section]
    assert not missing
    assert not [status for status in everywhere - {"200"} if f"| {status} |" not in text]


def test_every_stream_is_told() -> None:
    text = page("api.md")
    assert not [path for path in STREAMS if f"`streams/{path.removeprefix(STREAM_PREFIX)}`" not in text]


def test_every_named_error_is_told() -> None:
    told = rows(page("api.md"))
    assert not [name for name in ValidationError.by_name if name not in told]


def test_every_error_of_the_client_is_told() -> None:
    told = rows(page("client.md"))
    own = [name for name, kind in vars(client_errors).items() if name in client_errors.__all__]
    raised = [
        name for name in own if isinstance(getattr(client_errors, name), type) and name != "ClientError"
    ]
    assert len(raised) >= 7
    assert not [name for name in raised if name not in told]


def test_every_call_of_the_client_is_told() -> None:
    text = page("client.md")
    calls = [name for name in vars(Client) if not name.startswith("_") and name != "close"]
    assert not [name for name in calls if f"`{name}`" not in text]
    missing = [name for name in vars(Client) if not name.startswith("_") and not hasattr(AsyncClient, name)]
    assert missing in ([], ["close"])


def test_every_text_of_an_argument_error_is_told() -> None:
    text = page("api.md")
    shown = [value for name, value in vars(params).items() if name.startswith("BAD_") or name == "MISSING"]
    assert len(shown) >= 6
    assert not [value for value in shown if f"`{value}`" not in text]


def test_every_setting_is_told_with_its_default() -> None:
    told = rows(page("operating.md"))
    wrong = []
    for field in msgspec.structs.fields(Settings):
        name, environment, default, *_ = told[field.name]
        assert (name, environment) == (f"`{field.name}`", f"`{ENVIRONMENT_PREFIX}{field.name.upper()}`")
        if field.default not in (None, "", (), -1, msgspec.NODEFAULT) and default != f"`{field.default}`":
            wrong.append(f"{field.name}: {default}, is {field.default}")
    assert not wrong


def test_every_variable_is_told() -> None:
    assert not [name for name in OTHER_VARIABLES if f"`{name}`" not in page("operating.md")]


def test_every_limit_is_told_with_its_value() -> None:
    told = rows(page("operating.md"))
    values = {name: value for name, value in vars(limits).items() if name.isupper() and name != "VERSION"}
    wrong = {
        name: f"{value:,}" for name, value in values.items() if told.get(name, ["", ""])[1] != f"{value:,}"
    }
    assert not wrong
    assert f"(`VERSION` {limits.VERSION} of these limits)" in page("operating.md")
    assert not [name for name in told if name.endswith(("_MAX", "_KEPT")) and name not in values]


def test_every_metric_is_explained() -> None:
    told = rows(page("operating.md"))
    made = offers.metrics()
    assert not [metric for metric in made if metric not in told]
    assert not [name for name in told if name.startswith("bcdb_") and name not in made]


def test_every_command_is_told_with_its_arguments_and_options() -> None:
    told = rows(page("client.md"))
    wrong = []
    for words, command in offers.commands().items():
        row = " | ".join(told.get(words, []))
        shown = set(re.findall(r"`(--[a-z0-9-]+|[A-Z_]+)", row))
        there = {
            parameter.name.upper() if parameter.param_type_name == "argument" else parameter.opts[0]
            for parameter in command.params
        }
        if shown != there:
            wrong.append(f"{words}: told {sorted(shown)}, there {sorted(there)}")
    assert not wrong


def test_every_parameter_of_a_command_has_a_help_text() -> None:
    silent = [
        f"{words} {parameter.name}"
        for words, command in offers.commands().items()
        for parameter in command.params
        if not getattr(parameter, "help", "")
    ]
    assert not silent


def test_the_exit_codes_of_the_node_process_are_told() -> None:
    text = page("operating.md")
    assert f"{process.EXIT_STORAGE_FAILED} the storage failed" in text
    assert f"{process.EXIT_FAILED} a state that the code excludes" in text
    assert f"exit code {worker.STALLED_EXIT}" in text


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [path.name for path in offers.DOCS.glob("*.md") if f"(docs/{path.name})" not in text]


@pytest.mark.parametrize("name", PAGES)
def test_links_to_headings_lead_somewhere(name: str) -> None:
    dead = []
    for target, anchor in ANCHOR.findall(page(name)):
        headings = re.findall(r"^#+ (.*)$", page(target or name), re.MULTILINE)
        if anchor not in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}:
            dead.append(f"{target}#{anchor}")
    assert not dead
