"""The health check of the container: is the node of these settings ready? Exit code 0 if so, else 1 and why.

It reads the settings as the node does, so it finds another port and TLS too. It must stay cheap, as it runs
every few seconds, and it never writes anything.
"""

import http.client
import ssl
import sys
from urllib.parse import urlsplit

from bcdb.model.errors import BcdbError
from bcdb.node.settings import read_settings

ANSWER_S_MAX = 5.0
SAID_BYTES_MAX = 1000
"""The engine keeps what a health check says, but not all of a long answer."""


def connect(url: str) -> http.client.HTTPConnection:
    where = urlsplit(url)
    assert where.hostname is not None
    if where.scheme == "https":
        # The certificate bears the name that the world uses, and the way from here leads through nobody.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(where.hostname, where.port, timeout=ANSWER_S_MAX, context=context)
    return http.client.HTTPConnection(where.hostname, where.port, timeout=ANSWER_S_MAX)


def main() -> int:
    try:
        connection = connect(read_settings().url)
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        said = answer.read(SAID_BYTES_MAX).decode(errors="replace")
    except (BcdbError, OSError, http.client.HTTPException) as error:
        print(f"The node can't be asked for its health: {error}")
        return 1
    print(said)
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
