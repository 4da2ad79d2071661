"""The images of the tests: bcdb by docker/Dockerfile, and what it stands on without any registry of images.

On our own engine the base is a Debian made by debootstrap, and MongoDB is the mongod of the extra `mongo` on
that base. BASE_IMAGE and MONGO_IMAGE in the environment name others. What is made here is removed here.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.docker.engine import COMMAND_S_MAX, Engine, run

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "libcurl4", "python3-venv")
"""What the official image has of it, and a library that the mongod of the wheel needs."""
NOT_IN_BASE = ("./var/cache/apt", "./var/lib/apt/lists", "./usr/share/doc", "./usr/share/locale", "./dev")
BUILD_S_MAX = 900
PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "cert")
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
MONGO_DOCKERFILE = """
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN groupadd --gid 999 mongodb && useradd --uid 999 --gid 999 --no-create-home mongodb \\
    && install --directory --owner=999 --group=999 /data/db /data/configdb
COPY --chmod=755 mongod /usr/local/bin/mongod
USER mongodb
VOLUME /data/db /data/configdb
CMD ["mongod"]
"""


@contextlib.contextmanager
def base(engine: Engine) -> Iterator[str]:
    """The name of the base image: BASE_IMAGE, else Python's official one; on our own engine, Debian's."""
    given = os.environ.get("BASE_IMAGE")
    if given or not engine.own:
        yield given or "python:3.11-slim-bookworm"
        return
    name = f"bcdb-check-base:{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="bcdb-base-") as folder:
        root = Path(folder, "root")
        packages = ",".join(BASE_PACKAGES)
        command = ["/usr/sbin/debootstrap", "--variant=minbase", f"--include={packages}", RELEASE]
        run([*command, str(root), debian_mirror()], timeout_s=BUILD_S_MAX)
        left_out = [f"--exclude={path}/*" for path in NOT_IN_BASE]
        packing = ["tar", "--create", "--directory", str(root), *left_out, "."]
        with subprocess.Popen(packing, stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [*engine.docker, "import", "-", name],
                stdin=tar.stdout,
                env=dict(engine.environment),
                capture_output=True,
                timeout=COMMAND_S_MAX,
                check=True,
            )
        assert tar.returncode == 0
    with _removed(engine, name):
        yield name


@contextlib.contextmanager
def mongo(engine: Engine, base_image: str) -> Iterator[str]:
    """The name of an image of MongoDB: MONGO_IMAGE, else the official one; on our own engine, a small one."""
    given = os.environ.get("MONGO_IMAGE")
    if given or not engine.own:
        yield given or "mongo:7"
        return
    # Here, because most tests of this folder, and their collection, need no MongoDB.
    from query.mongo.binary import find_mongod

    name = f"bcdb-check-mongo:{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="bcdb-mongo-") as folder:
        Path(folder, "Dockerfile").write_text(MONGO_DOCKERFILE)
        shutil.copyfile(find_mongod(), Path(folder, "mongod"))
        arguments = ("--network", "none", "--build-arg", f"BASE_IMAGE={base_image}", "--tag", name)
        engine.run("build", *arguments, folder, timeout_s=BUILD_S_MAX)
    with _removed(engine, name):
        yield name


@contextlib.contextmanager
def node(engine: Engine, base_image: str) -> Iterator[str]:
    """The name of the image of bcdb, built by docker/Dockerfile from this very tree."""
    name = f"bcdb-check:{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="bcdb-build-") as folder:
        engine.run(
            *("build", "--file", str(ROOT / "docker" / "Dockerfile"), "--tag", name),
            # The network of the machine: an engine of our own has no other that leads out.
            *("--network", "host", "--build-arg", f"BASE_IMAGE={base_image}"),
            *(part for name in PROXIES if name in os.environ for part in ("--build-arg", name)),
            *pip_secrets(Path(folder)),
            str(ROOT),
            timeout_s=BUILD_S_MAX,
        )
    with _removed(engine, name):
        yield name


@contextlib.contextmanager
def _removed(engine: Engine, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        engine.run("image", "rm", "--force", name)


def debian_mirror() -> str:
    """Where this machine has its Debian packages from. Raises RuntimeError if that can't be told."""
    wanted = [
        "apt-get",
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]
    for line in run(wanted).splitlines():
        release, component, address = line.split(" ", 2)
        if release == RELEASE and component == "main":
            return address
    raise RuntimeError(f"No package source of Debian {RELEASE} is configured here: name a BASE_IMAGE.")


def pip_secrets(folder: Path) -> list[str]:
    """Arguments that give the build this machine's settings of pip, as secrets: they end up in no layer."""
    options = pip_options()
    arguments = []
    cert = options.pop("cert", None) or next(filter(None, map(os.environ.get, CERTIFICATES)), None)
    if cert:
        options["cert"] = "/run/secrets/ca_bundle"
        arguments += ["--secret", f"id=ca_bundle,src={cert}"]
    config = folder / "pip.conf"
    lines = ["[global]"]
    lines += [f"{name} = {value.replace(chr(10), chr(10) + '    ')}" for name, value in options.items()]
    config.write_text("\n".join(lines) + "\n")
    return [*arguments, "--secret", f"id=pip_conf,src={config}"]


def pip_options() -> dict[str, str]:
    """What of `pip config list` says where packages come from; the environment wins over files."""
    found: dict[str, str] = {}
    lines = run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in PIP_OPTIONS:
            found[option] = str(ast.literal_eval(value))
    return found
