"""Stands in for `curl` where the examples of the documentation are run: the tests need nothing but Python.

It knows the few options that the examples use, with curl's meaning and exit codes. It must never take another
one silently: an example would then be tested as something else than it says.
"""

from __future__ import annotations

import argparse
import http.client
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

COULD_NOT_CONNECT = 7
HTTP_ERROR = 22
TIMEOUT_S = 30.0


def install(folder: Path) -> Path:
    """Make an executable `curl` in `folder` (made too), for a PATH that begins with it; gives the folder."""
    folder.mkdir(exist_ok=True)
    command = folder / "curl"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} "$@"\n')
    command.chmod(0o755)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Send one request and print the answer; the exit code is curl's."""
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("-f", "--fail", action="store_true")
    parser.add_argument("--fail-with-body", action="store_true")
    parser.add_argument("--data-binary")
    given = parser.parse_args(arguments)
    address = urlsplit(given.url)
    if address.scheme != "http":
        parser.error("only http:// is known here")
    body, headers = None, {"Accept": "*/*"}
    if given.data_binary is not None:
        data: str = given.data_binary
        if data == "@-":
            body = sys.stdin.buffer.read()
        else:
            body = Path(data[1:]).read_bytes() if data.startswith("@") else data.encode()
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    connection = http.client.HTTPConnection(address.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET" if body is None else "POST", target, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    except OSError as error:
        if not given.silent:
            print(f"curl: {given.url}: {error}", file=sys.stderr)
        return COULD_NOT_CONNECT
    finally:
        connection.close()
    failed = answer.status >= 400 and (given.fail or given.fail_with_body)
    if failed and not given.fail_with_body:
        return HTTP_ERROR
    if given.include:
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        lines += [f"{name}: {value}" for name, value in answer.getheaders()]
        content = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + content
    if given.output is not None:
        given.output.write_bytes(content)
    else:
        sys.stdout.buffer.write(content)
    return HTTP_ERROR if failed else 0


if __name__ == "__main__":
    sys.exit(main())
