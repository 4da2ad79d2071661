"""`bcdb doctor`: each check for itself on homes and machines that lack something, and the whole of it."""

import datetime
import os
import resource
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bcdb.cli import doctor
from bcdb.cli.doctor import Finding
from bcdb.cli.home import locked, make_home
from bcdb.ledger import Ledger
from bcdb.node.settings import Settings
from consensus.cometbft import binary
from consensus.cometbft.binary import VERSION
from consensus.cometbft.genesis import ConsensusParameters, genesis_file
from consensus.cometbft.keys import Key
from consensus.engine import Genesis, Validator
from query.errors import StoreUnavailable
from tests.cli.running import run
from tests.ledger.world import CHAIN_ID, commit, header
from tests.support.server import free_ports
from tests.support.transactions import alice

S = 1_000_000_000
GIB = 1024**3
COMET = """#!/bin/sh
echo '{"cometbft":"%s","abci":"2.0.0"}'
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as `bcdb init` makes it, of the chain that the ledgers of the tests are of."""
    make_home(tmp_path / "home", {"chain_id": CHAIN_ID})
    return tmp_path / "home"


def settings_of(home: Path, **given: Any) -> Settings:
    return Settings(**{"home": home, "chain_id": CHAIN_ID, **given})


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def seen(finding: Finding) -> tuple[str, str]:
    assert finding.name
    assert finding.text
    assert "\n" not in finding.text + finding.remedy
    assert finding.remedy or finding.state == "ok", "what is wrong has a remedy"
    return finding.state, finding.text


# --- the whole ----------------------------------------------------------------------------------------------


def test_a_home_that_has_all_it_needs(home: Path) -> None:
    port, stream_port = map(str, free_ports())
    environment = {"BCDB_PORT": port, "BCDB_STREAM_PORT": stream_port}
    done = run("doctor", "--home", home, environment=environment)
    assert done.exit_code == 0, done.output
    *lines, last = done.stdout.splitlines()
    assert last == f"All that {home} needs is there."
    assert f"ok       port          {port} on 127.0.0.1 is free" in lines
    assert not [line for line in lines if line.startswith("missing")]


def test_as_json(home: Path) -> None:
    (home / "node_key.json").chmod(0o644)
    done = run("doctor", "--home", home, "--json", environment={"BCDB_PORT": "0"})
    assert done.exit_code == 1
    told = doctor.msgspec.json.decode(done.stdout)
    assert (told["home"], told["ok"]) == (str(home), False)
    names = [check["name"] for check in told["checks"]]
    assert len(set(names)) == len(names) > 10
    (lack,) = [check for check in told["checks"] if check["state"] == "missing"]
    assert lack == {
        "name": "node key",
        "state": "missing",
        "text": f"{home / 'node_key.json'} is open to other users",
        "remedy": f"chmod 600 {home / 'node_key.json'}",
    }


def test_before_a_home_is_made(tmp_path: Path) -> None:
    done = run("doctor", "--home", tmp_path / "new", environment={"BCDB_PORT": "0"})
    assert done.exit_code == 0, done.output
    assert f"bcdb init --home {tmp_path / 'new'}" in done.stdout
    assert not (tmp_path / "new").exists()


def test_settings_that_cannot_be_read(home: Path) -> None:
    (home / "config.toml").write_text("prot = 1\n")
    done = run("doctor", "--home", home)
    assert done.exit_code == 1
    assert "missing  settings      Unknown setting 'prot'" in done.stdout
    assert f"What {home} needs is not all there: settings." in done.stdout
    assert " port " not in done.stdout, "nobody knows which"
    assert run("doctor", environment={"BCDB_HOME": str(home)}).stdout == done.stdout
    assert run("doctor", "--home", home, environment={"BCDB_X": "1"}).exit_code == 1


def test_a_home_in_use(home: Path) -> None:
    Ledger.open(home / "ledger", chain_id=CHAIN_ID).close()
    settings = settings_of(home)
    assert not doctor.in_use(settings)
    with locked(settings):
        assert doctor.in_use(settings)
        done = run("doctor", "--home", home)
        assert done.exit_code == 0, done.output
        assert "ledger        not looked at" in done.stdout
        assert "port          9984 is not looked at" in done.stdout
    assert not doctor.in_use(settings)


def test_a_home_of_a_network_has_more_checks(home: Path, tmp_path: Path) -> None:
    comet = program(tmp_path / "cometbft", COMET % VERSION)
    environment = {
        "BCDB_ENGINE": "cometbft",
        "BCDB_COMETBFT": str(comet),
        "BCDB_PORT": "0",
        "BCDB_P2P_LISTEN": "127.0.0.1:0",
    }
    done = run("doctor", "--home", home, environment=environment)
    assert done.exit_code == 1
    assert f"cometbft      {VERSION} at {comet} (BCDB_COMETBFT)" in done.stdout
    assert f"What {home} needs is not all there: genesis, members." in done.stdout
    assert "ok       p2p_listen    the system chooses one" in done.stdout


# --- the machine --------------------------------------------------------------------------------------------


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_python().state == "ok"
    monkeypatch.setattr(doctor, "PYTHON_AT_LEAST", (99, 1))
    found = doctor.check_python()
    assert found.state == "missing"
    assert "99.1" in found.remedy


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    state, text = seen(doctor.check_packages())
    assert state == "ok"
    assert all(name in text for name in ("rocksdict 0.", "uvloop 0.", "py-ed25519-zebra-bindings 1."))

    def broken() -> None:
        raise OSError("libzstd.so.9: cannot open shared object file\nand more")

    monkeypatch.setitem(doctor.COMPILED, "rocksdict", broken)
    found = doctor.check_packages()
    assert seen(found) == (
        "missing",
        "can't be loaded: rocksdict (libzstd.so.9: cannot open shared object file)",
    )
    assert "pip install --force-reinstall" in found.remedy


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH of a machine with nothing on it."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(binary, "_packaged_go", lambda: None)
    return tmp_path / "bin"


def test_cometbft(home: Path, bare: Path) -> None:
    alone, member = settings_of(home), settings_of(home, engine="cometbft")
    assert doctor.check_cometbft(alone).state == "ok"
    found = doctor.check_cometbft(member)
    assert seen(found) == ("missing", "There is no CometBFT on this machine")
    assert "bcdb engine install" in found.remedy
    path = program(bare / "cometbft", COMET % "0.38.7")
    assert seen(doctor.check_cometbft(member))[0] == "warn"
    assert doctor.check_cometbft(alone).state == "ok"
    program(path, COMET % VERSION)
    assert seen(doctor.check_cometbft(member)) == ("ok", f"{VERSION} at {path} (PATH)")
    named = settings_of(home, engine="cometbft", cometbft=bare / "other")
    found = doctor.check_cometbft(named)
    assert seen(found) == ("missing", f"{bare / 'other'} can't be run: No such file or directory")
    assert "the setting `cometbft`" in found.remedy


def test_go(bare: Path) -> None:
    assert doctor.check_go(needed=False).state == "ok"
    found = doctor.check_go(needed=True)
    assert seen(found) == ("warn", "Building CometBFT needs Go 1.22 or newer, and there is none")
    assert "make engine" in found.remedy
    path = program(bare / "go", "#!/bin/sh\necho go version go1.26.1 linux/amd64\n")
    assert seen(doctor.check_go(needed=True)) == ("ok", f"{path} can build CometBFT")


def test_mongod(home: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without, own = settings_of(home), settings_of(home, mongo=True)
    path = program(bare / "mongod", "#!/bin/sh\necho db version v6.0.5\n")
    assert seen(doctor.check_mongod(own)) == ("ok", f"6.0.5 at {path}")
    for text, said in (
        ("#!/bin/sh\necho db version v4.4.1\n", "is 4.4.1; 6.0 or newer is needed"),
        ("#!/bin/sh\necho hello\n", "does not tell its version"),
        ("#!/bin/sh\necho libssl.so.3: not found >&2\nexit 127\n", "does not run here: libssl.so.3: not"),
        ("#!/nowhere/sh\n", "can't be run"),
    ):
        program(path, text)
        state, told = seen(doctor.check_mongod(own))
        assert state == "missing"
        assert said in told
        assert doctor.check_mongod(without).state == "ok"

    def nowhere() -> Path:
        raise StoreUnavailable("There is no `mongod` on this machine: get one")

    monkeypatch.setattr("query.mongo.binary.find_mongod", nowhere)
    assert doctor.check_mongod(own).state == "missing"
    assert "not needed here" in doctor.check_mongod(without).text


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, state in ((1024, "warn"), (65_536, "ok"), (resource.RLIM_INFINITY, "ok")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=most: (most, most))
        assert seen(doctor.check_open_files())[0] == state


def test_the_clock() -> None:
    now_ns = time.time_ns()
    assert doctor.check_clock(now_ns, 0).state == "ok"
    assert doctor.check_clock(now_ns, now_ns + S).state == "ok"
    assert seen(doctor.check_clock(now_ns, now_ns + 60 * S))[0] == "warn"
    state, text = seen(doctor.check_clock(5 * S, 0))
    assert (state, text) == ("warn", "1970-01-01 00:00:05 UTC, which is before this version of bcdb was made")


# --- the home -----------------------------------------------------------------------------------------------


def test_settings(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(doctor.check_settings(home)) == ("ok", str(home / "config.toml"))
    assert "the defaults hold" in doctor.check_settings(tmp_path).text
    monkeypatch.setenv("BCDB_MONGO_URI", "mongodb://me:hush@host:99999")
    state, text = seen(doctor.check_settings(home))
    assert state == "missing"
    assert "hush" not in text


def test_the_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(doctor.check_home(settings_of(home)))[0] == "ok"
    home.chmod(0o750)
    found = doctor.check_home(settings_of(home))
    assert seen(found) == ("warn", f"{home} is open to other users (mode 0750)")
    assert found.remedy == f"chmod 700 {home}"
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        assert seen(doctor.check_home(settings_of(wrong)))[0] == "missing"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert seen(doctor.check_home(settings_of(home)))[0] == "missing"
    assert seen(doctor.check_home(settings_of(tmp_path / "new")))[0] == "missing"
    monkeypatch.undo()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert seen(doctor.check_home(settings_of(home)))[0] == "warn"


def test_the_node_key(home: Path) -> None:
    alone, member = settings_of(home), settings_of(home, engine="cometbft")
    path = home / "node_key.json"
    state, text = seen(doctor.check_node_key(alone))
    assert state == "ok"
    assert str(path) in text
    path.write_text("{}")
    assert seen(doctor.check_node_key(alone))[0] == "missing"
    path.unlink()
    assert "yet" in seen(doctor.check_node_key(alone))[1]
    assert "yet" in seen(doctor.check_node_key(member))[1]
    (home / "ledger").mkdir()
    assert seen(doctor.check_node_key(alone))[0] == "warn"
    (home / "ledger").rmdir()
    (home / "genesis.json").write_text("{}")
    assert seen(doctor.check_node_key(member))[0] == "missing"


def test_space(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((10 * GIB, "ok"), (GIB, "warn"), (GIB // 8, "missing")):
        usage = shutil._ntuple_diskusage(0, 0, free)  # type: ignore[attr-defined]
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        assert seen(doctor.check_space(settings_of(home)))[0] == state


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:20 / /mnt rw - tmpfs tmpfs rw
24 22 0:21 / /mnt/two\\040words rw master:3 - nfs4 server:/x rw
25 22 0:22 / /mnt rw - xfs /dev/vdb rw
line without fields
"""


def test_which_file_system_a_path_is_on() -> None:
    for path, kind in (
        ("/", "ext4"),
        ("/mntx", "ext4"),
        ("/mnt/node", "xfs"),
        ("/mnt/two words/node", "nfs4"),
    ):
        assert doctor.file_system_of(Path(path), MOUNTS) == kind
    assert doctor.file_system_of(Path("/"), "") == ""


def test_file_systems(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(doctor, "MOUNTS", mounts)
    assert "not known" in seen(doctor.check_file_system(settings_of(home)))[1]
    kinds = {"ext4": "ok", "nfs4": "warn", "fuse.sshfs": "warn", "tmpfs": "warn", "overlay": "warn"}
    for kind, state in kinds.items():
        mounts.write_text(f"22 1 254:0 / / rw - {kind} x rw\n")
        found = doctor.check_file_system(settings_of(home))
        assert seen(found)[0] == state
        assert kind in found.text


def test_the_ledger(home: Path) -> None:
    settings = settings_of(home)
    found, time_ns = doctor.look_at_ledger(settings, running=False)
    assert (found.state, time_ns) == ("ok", 0)
    ledger = Ledger.open(home / "ledger", chain_id=CHAIN_ID)
    commit(ledger)
    ledger.close()
    found, time_ns = doctor.look_at_ledger(settings, running=False)
    assert seen(found) == ("ok", f"chain {CHAIN_ID}, at block 1")
    assert time_ns == header(1).time_ns
    other = settings_of(home, chain_id="other")
    found, time_ns = doctor.look_at_ledger(other, running=False)
    assert (found.state, time_ns) == ("missing", 0)
    assert "not to 'other'" in found.text
    assert doctor.look_at_ledger(other, running=True)[0].state == "ok"


def test_tls(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    settings = settings_of(tmp_path, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    assert "No such file" in seen(doctor.check_tls(settings))[1]
    with_passphrase = serialization.BestAvailableEncryption(b"secret")
    for encryption, state in ((with_passphrase, "missing"), (serialization.NoEncryption(), "ok")):
        (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, encryption))
        assert seen(doctor.check_tls(settings))[0] == state


def test_ports(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        found = doctor.check_port("stream_port", "127.0.0.1", port)
        assert seen(found) == ("missing", f"Port {port} on 127.0.0.1 is in use by another program")
        assert "the setting `stream_port`" in found.remedy
        settings = settings_of(home, engine="cometbft", port=0, p2p_listen=f"127.0.0.1:{port}")
        states = {found.name: found.state for found in doctor.check_ports(settings, running=False)}
        assert states == {"port": "ok", "stream_port": "ok", "p2p_listen": "missing"}
        assert {found.state for found in doctor.check_ports(settings, running=True)} == {"ok"}
    assert doctor.check_port("port", "127.0.0.1", port).state == "ok"


def test_the_genesis(home: Path) -> None:
    settings = settings_of(home, engine="cometbft")
    assert "No such file" in seen(doctor.check_genesis(settings))[1]
    validators = (Validator(Key.generate().public, 10),)
    genesis = Genesis(CHAIN_ID, time.time_ns(), validators)
    settings.genesis_path.write_bytes(genesis_file(genesis, ConsensusParameters(1_000_000)))
    assert seen(doctor.check_genesis(settings)) == ("ok", f"{CHAIN_ID}, with 1 validators at first")
    state, text = seen(doctor.check_genesis(settings_of(home, engine="cometbft", chain_id="other")))
    assert state == "missing"
    assert f"of the chain {CHAIN_ID!r}, the settings are of 'other'" in text
    settings.genesis_path.write_text("{}")
    assert "can't be used" in seen(doctor.check_genesis(settings))[1]


def test_the_members(home: Path) -> None:
    settings = settings_of(home, engine="cometbft")
    assert "is missing" in seen(doctor.check_members(settings))[1]
    text = f'[[members]]\nname = "a"\nnode_id = "{"0" * 40}"\nkey = "{alice.public_key}"\n'
    settings.members_path.write_text(text)
    assert seen(doctor.check_members(settings)) == ("ok", f"1 in {settings.members_path}")
    settings.members_path.write_text(text + text)
    assert seen(doctor.check_members(settings))[0] == "missing"
