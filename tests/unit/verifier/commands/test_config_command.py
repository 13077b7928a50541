"""``weighbridge config check | show | keys``: everything that is wrong is said, and nothing is changed by asking."""

from __future__ import annotations

import json
import shutil
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from support.configured import REFERENCE, Configured, configured
from support.site import here
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence
from weighbridge.proto.policy_bundle import BUNDLE_TYP
from weighbridge.proto.reference_set import SET_TYP
from weighbridge.verifier import pki
from weighbridge.verifier.commands.benches import read_bases
from weighbridge.verifier.commands.config_files import UNVERIFIED
from weighbridge.verifier.relying_parties import RelyingParties, RelyingParty
from weighbridge.verifier.settings.describe import markdown
from weighbridge.verifier.settings.layers import PREFIX, load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Configured:
    found = configured(tmp_path_factory.mktemp("configured") / "one", "tenant-a", "tenant-b")
    # Of which nothing is to be warned.
    reason = "a test: there are no GPUs of whose maker anything could be known"
    accepted = {"models": {bytes(32).hex(): {"name": "tiny"}}, "unchecked": {"gpu_revocation": reason}}
    (found.directory / "reference.json").write_text(json.dumps(REFERENCE | accepted))
    return found


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests may have set something."""
    monkeypatch.delenv(f"{PREFIX}SERVE_STATE", raising=False)


def check(file: Path) -> tuple[ExitCode, dict[str, Any], str]:
    told, said = here("weighbridge", "config", "check", file, "--json"), here("weighbridge", "config", "check", file)
    assert told.status == said.status
    document = json.loads(told.out)
    assert document["schema"] == "weighbridge/config-check/v1"
    return ExitCode(told.status), document, said.out


def _snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}


def test_what_serve_could_begin_with_is_ok(made: Configured) -> None:
    before = _snapshot(made.directory)
    status, document, said = check(made.file)
    assert (status, document["failed"], document["warnings"]) == (ExitCode.AFFIRMED, 0, 0)
    assert {one["key"] for one in document["checks"]} == {
        "serve.state", "serve.state (tls)", "serve.listen", "judging.requirements", "judging.reference",
        "judging.anchors", "judging.engine", "judging.policy",
    }  # fmt: skip
    assert said.splitlines()[-1] == "0 failed, 0 warnings, 8 ok"
    assert _snapshot(made.directory) == before


def test_each_workers_port_for_figures_is_looked_at(made: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}SERVE_WORKERS", "2")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(f"{PREFIX}METRICS_LISTEN", f"127.0.0.1:{port - 1}")
        _, document, _ = check(made.file)
    (said,) = [one["says"] for one in document["checks"] if one["key"] == "metrics.listen"]
    assert said.startswith("PORT_UNAVAILABLE"), said


@pytest.mark.parametrize(
    ("http", "figures", "refused"),
    [
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "0.0.0.0:1", True),
        ("[::]:1", "[::1]:1", True),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("[::1]:1", "0.0.0.0:1", False),
    ],
)
def test_whoever_listens_everywhere_has_the_port_of_each(
    made: Configured, monkeypatch: pytest.MonkeyPatch, http: str, figures: str, *, refused: bool
) -> None:
    monkeypatch.setenv(f"{PREFIX}HTTP_LISTEN", http)
    monkeypatch.setenv(f"{PREFIX}METRICS_LISTEN", figures)
    _, document, _ = check(made.file)
    failed = [(one["key"], one["error"]["code"]) for one in document["checks"] if one["status"] == "fail"]
    assert failed == ([("metrics.listen", "DUPLICATE_KEY")] if refused else [])


def test_all_that_is_wrong_is_said_at_once(made: Configured, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "rules.rego").write_text("package weighbridge.author\nallow := true if {")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "weighbridge.toml"
        file.write_text(
            f'[serve]\nstate = "{made.state}"\nlisten = "127.0.0.1:{port}"\nport_file = "none/port"\n'
            '[judging]\nrequirements = "broken.json"\nreference = "none.json"\nsets = ["broken.json"]\n'
            'policy = ["rules.rego"]\nmanifests = ["broken.json"]\ncollateral = "none"\n'
            f'[channel]\ncertificate = "{made.state}/tls/server.pem"\nkey = "{made.state}/tls/ca-key.pem"\n'
            '[relying_parties]\nfile = "broken.json"\nca = "broken.json"\n'
            '[http]\nlisten = "0.0.0.0:1"\nplain = true\n[metrics]\nlisten = "0.0.0.0:1"\n'
        )
        status, document, _ = check(file)
    failed = [(one["key"], one["error"]["code"]) for one in document["checks"] if one["status"] == "fail"]
    assert failed == [
        ("serve.port_file", "FILE_UNWRITABLE"), ("channel.certificate", "KEY_MALFORMED"),
        ("metrics.listen", "DUPLICATE_KEY"), ("relying_parties.file", "FIELD_MISSING"),
        ("relying_parties.ca", "CERT_MALFORMED"), ("judging.requirements", "FIELD_MISSING"),
        ("judging.reference", "FILE_UNREADABLE"), ("judging.manifests", "FIELD_MISSING"),
        ("judging.collateral", "FILE_UNREADABLE"), ("judging.sets", "NOT_CBOR"),
        ("judging.policy", "POLICY_INVALID"),
    ]  # fmt: skip
    warned = {one["key"] for one in document["checks"] if one["status"] == "warn"}
    assert {"serve.listen", "http.plain"} <= warned
    assert status == ExitCode.ENVIRONMENT


def test_without_reference_and_anchors_the_rest_is_looked_at(made: Configured, tmp_path: Path) -> None:
    """All in one go: whoever mends the one is not to find the other then."""
    file = made.directory / "blind.toml"
    for name, typ in (("set", SET_TYP), ("bundle", BUNDLE_TYP)):
        signed = cose.sign(b"\xa0", kid=bytes(32), typ=typ, signer=lambda _: bytes(64))
        (tmp_path / f"{name}.cose").write_bytes(signed)
    text = made.file.read_text().replace('"reference.json"', '"none.json"')
    file.write_text(
        f'{text}anchors = ["none.json"]\nsets = ["{tmp_path}/set.cose", "{tmp_path}/bundle.cose"]\n'
        f'policy_bundles = ["{tmp_path}/bundle.cose", "none.cose"]\n'
    )
    try:
        _, document, _ = check(file)
    finally:
        file.unlink()
    found = [(one["key"].removeprefix("judging."), one["status"]) for one in document["checks"]]
    assert found[-7:] == [
        ("reference", "fail"), ("anchors", "fail"), ("sets", "ok"), ("sets", "fail"), ("engine", "ok"),
        ("policy", "ok"), ("policy_bundles", "fail"), ("policy_bundles", "fail"),
    ][-7:]  # fmt: skip
    assert sum(UNVERIFIED in one["says"] for one in document["checks"]) == 1


def test_what_opens_no_gate_is_warned_of(made: Configured) -> None:
    """No model that is accepted, no word of GPUs' makers, a tenant that a relying party asks of and nobody judges."""
    (made.directory / "empty.json").write_text(json.dumps(REFERENCE))
    party = RelyingParty(name="gate", key=bytes(32).hex(), tenants=("tenant-a", "other"), audiences=("x",))
    (made.directory / "parties.json").write_bytes(RelyingParties(relying_parties=(party,)).encode())
    file = made.directory / "warned.toml"
    text = made.file.read_text().replace('"reference.json"', '"empty.json"')
    file.write_text(f'{text}[relying_parties]\nfile = "parties.json"\n')
    try:
        _, document, _ = check(file)
    finally:
        file.unlink()
    warned = {one["key"]: one["says"] for one in document["checks"] if one["status"] == "warn"}
    assert warned.keys() == {"judging.reference", "judging.collateral", "relying_parties.file"}
    assert "of other:" in warned["relying_parties.file"]


def test_the_ledger_lies_where_it_was_made(made: Configured) -> None:
    """Whether it can be had there, only serve finds out."""
    said = made.state / "ledger-storage"
    file = made.directory / "storage.toml"
    file.write_text(f"{made.file.read_text()}[ledger]\nstorage = 's3://bucket/prefix'\n")
    try:
        for lies, expected in (
            (None, [("fail", "STATE_CORRUPT"), ("warn", None)]),
            ("s3://bucket/else", [("fail", "STATE_CORRUPT"), ("warn", None)]),
            ("s3://bucket/prefix", [("ok", None), ("warn", None)]),
        ):
            if lies is not None:
                said.write_text(lies)
            _, document, _ = check(file)
            found = [one for one in document["checks"] if one["key"] == "ledger.storage"]
            codes = [(one["status"], one["error"]["code"] if one["status"] == "fail" else None) for one in found]
            assert sorted(codes, key=str) == sorted(expected, key=str)
    finally:
        said.unlink(missing_ok=True)
        file.unlink()


def test_a_policy_is_loaded_and_a_tenant_stands_once(made: Configured) -> None:
    (made.directory / "rules.rego").write_text("package weighbridge.author\nallow := true if {")
    text = made.file.read_text()
    file = made.directory / "several.toml"
    try:
        file.write_text(
            text.replace('requirements = "tenant-a.json"\n', "any_admitted_host = true\n")
            + '[[tenants]]\nrequirements = "tenant-a.json"\npolicy = ["rules.rego"]\n'
            '[[tenants]]\nrequirements = "tenant-a.json"\n[[tenants]]\nrequirements = "tenant-b.json"\n'
        )
        _, document, _ = check(file)
    finally:
        file.unlink()
    failed = [(one["key"], one["error"]["code"]) for one in document["checks"] if one["status"] == "fail"]
    assert failed == [("tenants.0.policy", "POLICY_INVALID"), ("tenants.1.requirements", "DUPLICATE_KEY")]


@pytest.mark.parametrize(
    ("where", "authority", "refused"),
    [
        ("judging", "own/ca.pem", "tenants.1.attester_ca"),
        ("tenants", "own/ca.pem", "tenants.1.attester_ca"),
        # The tenant without one would admit its hosts, too.
        ("others", "state/tls/ca.pem", "tenants.0.attester_ca"),
    ],
)
def test_no_authority_admits_hosts_of_two_tenants(made: Configured, where: str, authority: str, refused: str) -> None:
    own = f'attester_ca = "{authority}"\n'
    (made.directory / "own").mkdir(exist_ok=True)
    if not (made.directory / "own" / "ca.pem").exists():
        pki.create_authority(made.directory / "own", name="a tenant's own", at=datetime.now(UTC))
    file = made.directory / "shared.toml"
    first = own if where != "judging" else ""
    second = {"judging": "", "tenants": own, "others": "any_admitted_host = true\n"}[where]
    text = made.file.read_text().replace('requirements = "tenant-a.json"\n', own if where == "judging" else "")
    try:
        file.write_text(
            f'{text}[[tenants]]\nrequirements = "tenant-a.json"\n{first}'
            f'[[tenants]]\nrequirements = "tenant-b.json"\n{second}'
        )
        _, document, _ = check(file)
        served = here("weighbridge", "serve", "--config", file)
    finally:
        file.unlink()
    failed = [(one["key"], one["error"]["code"]) for one in document["checks"] if one["status"] == "fail"]
    assert failed == [(refused, "DUPLICATE_KEY")]
    assert (served.status, refused in served.err) == (ExitCode.MALFORMED, True)


@pytest.mark.parametrize("said", ["", "any_admitted_host = false\n", "any_admitted_host = true\n"])
def test_of_several_tenants_each_says_whose_hosts_attest_for_it(made: Configured, said: str) -> None:
    """Else those of one, whom STATE's authority admitted, attest for another; one tenant has no others."""
    file = made.directory / "several.toml"
    text = made.file.read_text().replace('requirements = "tenant-a.json"\n', said)
    one, two = (f'[[tenants]]\nrequirements = "tenant-{name}.json"\n' for name in "ab")
    try:
        file.write_text(text + one)
        _, alone, _ = check(file)
        file.write_text(text + one + two)
        status, document, _ = check(file)
        settings = load(file, {}, {}).settings
        if "true" not in said:
            with pytest.raises(MalformedEvidence) as refusal:
                read_bases(settings)
            assert (refusal.value.code, refusal.value.where) == (Code.FIELD_MISSING, "tenants.0.attester_ca")
    finally:
        file.unlink()
    assert [one["key"] for one in alone["checks"] if one["status"] == "fail"] == []
    found = [(one["key"], one["status"]) for one in document["checks"] if "tenants" in one["key"]]
    if "true" in said:
        assert (status, len(read_bases(settings))) == (0, 2)
        assert [one for one in found if one[1] != "ok"] == [(f"tenants.{n}.any_admitted_host", "warn") for n in (0, 1)]
    else:
        assert status == ExitCode.MALFORMED
        assert [one for one in found if one[1] != "ok"] == [(f"tenants.{n}.attester_ca", "fail") for n in (0, 1)]


def test_what_is_missing_and_what_is_no_key(tmp_path: Path) -> None:
    file = tmp_path / "weighbridge.toml"
    file.write_text("")
    status, document, _ = check(file)
    assert status == ExitCode.MALFORMED
    assert [one["key"] for one in document["checks"] if one["status"] == "fail"] == [
        "serve.state", "judging.requirements", "judging.reference", "judging.policy"
    ]  # fmt: skip
    file.write_text("[serve]\nlissen = 1\nworkers = 0\n")
    status, document, said = check(file)
    assert status == ExitCode.MALFORMED
    assert [one["key"] for one in document["checks"]] == ["serve.workers", "serve.lissen"]
    assert "did you mean listen?" in said


def test_a_key_that_others_can_read(made: Configured, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(made.state, state)
    (state / "keys" / "signing.pem").chmod(0o644)
    file = tmp_path / "weighbridge.toml"
    file.write_text(made.file.read_text().replace('state = "state"', f'state = "{state}"'))
    _, document, _ = check(file)
    assert "KEY_EXPOSED" in {one["error"]["code"] for one in document["checks"] if one["error"]}


def test_values_are_shown_with_whoever_says_them(made: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}SERVE_LISTEN", "[::1]:8443")
    shown = here("weighbridge", "config", "show", made.file)
    assert (shown.status, shown.err) == (0, "")
    lines = dict(line.split(" = ", 1) for line in shown.out.splitlines())
    assert lines["serve.listen"].split() == ['"[::1]:8443"', "#", f"{PREFIX}SERVE_LISTEN"]
    assert lines["serve.state"].endswith(f"# {made.file}:2")
    everything = json.loads(here("weighbridge", "config", "show", made.file, "--all", "--json").out)
    rows = {row["key"]: row for row in everything["values"]}
    assert rows["serve.workers"] == {"key": "serve.workers", "value": 1, "kind": "default", "from": "default"}
    assert rows["limits.credit"]["value"] == 4
    assert rows["serve.listen"]["kind"] == "environment"


def test_the_table_of_keys_is_the_one_in_the_documents(root: Path) -> None:
    printed = here("weighbridge", "config", "keys")
    assert (printed.status, printed.out) == (0, markdown())
    text = (root / "docs" / "configuration.md").read_text()
    begin, end = "<!-- begin keys -->\n", "<!-- end keys -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == markdown(), "scripts/config_keys.py writes it"
    listed = json.loads(here("weighbridge", "config", "keys", "--json").out)["keys"]
    assert {f"| `{one['key']}` | {one['type']} |" for one in listed} <= {
        f"{line.rsplit('|', 4)[0]}|" for line in markdown().splitlines() if line.startswith("| `")
    }
