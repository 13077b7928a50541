"""File, environment and command line: what wins, what is refused, and where it says that it stands."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, WeighbridgeError
from weighbridge.verifier.service_limits import Limits, Share
from weighbridge.verifier.settings.kinds import Place
from weighbridge.verifier.settings.layers import CONFIG_MAX, about, gather, keys_of, load, variable
from weighbridge.verifier.settings.model import Judging, LimitsSection, Settings, ShareSection, Tenant
from weighbridge.verifier.settings.positions import lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = """\
[serve]
state = "state"
listen = "[::]:8443"
workers = 4

[judging]
policy = ["production"]
anchors = ["shipped", "own.json"]
engine = "cross:regorus,opa-go:opa"
foreign = ["nvidia:their.rego"]
reference = "/etc/reference.json"

[[tenants]]
requirements = "a.json"

[[tenants]]
requirements = "b.json"
policy = []
policy_bundles = ["b.bundle"]

[http]
listen = "127.0.0.1:8080"
plain = true
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "weighbridge.toml"
    file.write_text(text)
    return file


def faults(tmp_path: Path, text: str, **environment: str) -> Sequence[WeighbridgeError]:
    loaded, found = gather(written(tmp_path, text), environment, {})
    assert loaded is None
    return found


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(written(tmp_path, FULL), {}, {}).settings
    assert (settings.serve.state, settings.serve.listen) == (tmp_path / "state", Place("::", 8443))
    assert settings.judging.policy == ("production",)
    assert settings.judging.anchors == ("shipped", str(tmp_path / "own.json"))
    assert str(settings.judging.engine) == f"cross:regorus,opa-go:{tmp_path / 'opa'}"
    assert settings.judging.foreign == (f"nvidia:{tmp_path / 'their.rego'}",)
    assert settings.judging.reference == Path("/etc/reference.json")
    assert settings.http.plain


def test_a_tenant_says_what_differs(tmp_path: Path) -> None:
    first, second = load(written(tmp_path, FULL), {}, {}).settings.judged()
    assert (first.requirements, first.policy, first.policy_bundles) == (tmp_path / "a.json", ("production",), ())
    # An empty list says "none", not "as the others".
    assert (second.requirements, second.policy) == (tmp_path / "b.json", ())
    assert second.policy_bundles == (tmp_path / "b.bundle",)
    assert {first.reference, second.reference} == {Path("/etc/reference.json")}


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[serve]\nlisten = "localhost:1"\nworkers = 1\nfingerprints = 1\n')
    environment = {"WEIGHBRIDGE_SERVE_WORKERS": "2", "WEIGHBRIDGE_SERVE_FINGERPRINTS": "2"}
    loaded = load(file, environment, {("serve", "fingerprints"): ("--fingerprints", 3)})
    assert loaded.settings.serve.listen == Place("localhost", 1)
    assert (loaded.settings.serve.workers, loaded.settings.serve.fingerprints) == (2, 3)
    assert str(loaded.origin("serve", "listen")) == f"{file}:2"
    assert str(loaded.origin("serve", "workers")) == "WEIGHBRIDGE_SERVE_WORKERS"
    assert str(loaded.origin("serve", "fingerprints")) == "--fingerprints"
    assert str(loaded.origin("serve", "state")) == "default"


def test_without_a_file_the_environment_says_all(tmp_path: Path) -> None:
    environment = {
        "WEIGHBRIDGE_JUDGING_SETS": '["a b", "c"]',
        "WEIGHBRIDGE_HTTP_PLAIN": "true",
        "WEIGHBRIDGE_SERVE_STATE": str(tmp_path),
        "WEIGHBRIDGE_RELYING_PARTIES_FILE": "parties.json",
    }
    settings = load(None, environment, {}).settings
    assert settings.judging.sets == (Path("a b"), Path("c"))
    assert settings.http.plain
    assert (settings.serve.state, settings.relying_parties.file) == (tmp_path, Path("parties.json"))


@pytest.mark.parametrize(
    ("text", "code", "where", "hint"),
    [
        ("[serve]\nlisten = 8443\n", Code.FIELD_TYPE, ":2: serve.listen", ""),
        ('[serve]\nlisten = "8443"\n', Code.FIELD_RANGE, ":2: serve.listen", ""),
        ("[serve]\n\nworkers = 0\n", Code.FIELD_RANGE, ":3: serve.workers", ""),
        ("[serve]\nworkers = true\n", Code.FIELD_TYPE, ":2: serve.workers", ""),
        ('[serve]\nworkers = "2"\n', Code.FIELD_TYPE, ":2: serve.workers", ""),
        ('[serve]\nstate = ""\n', Code.FIELD_RANGE, ":2: serve.state", ""),
        ('[serve]\nstate = "a\\u0000b"\n', Code.FIELD_RANGE, ":2: serve.state", ""),
        ('[serve]\nlissen = "x"\n', Code.FIELD_UNKNOWN, ":2: serve.lissen", "did you mean listen?"),
        ('listen = "x"\n', Code.FIELD_UNKNOWN, ":1: listen", "did you mean serve.listen?"),
        ("[judgement]\n", Code.FIELD_UNKNOWN, ":1: judgement", "did you mean judging?"),
        ("[serve]\nzzz = 1\n", Code.FIELD_UNKNOWN, ":2: serve.zzz", "the keys of [serve] are state, "),
        ("[[tenants]]\nrequirement = 'a'\n", Code.FIELD_UNKNOWN, ":2: tenants.0.requirement", "mean requirements?"),
        ("[judging]\npolicy = 'production'\n", Code.FIELD_TYPE, ":2: judging.policy", ""),
        ("[judging]\npolicy = ['a', 1]\n", Code.FIELD_TYPE, ":2: judging.policy.1", ""),
        ("[judging]\nengine = 'cobra'\n", Code.FIELD_RANGE, ":2: judging.engine", ""),
        ("serve = 1\n", Code.FIELD_TYPE, ":1: serve", ""),
        ("tenants = {}\n", Code.FIELD_TYPE, ":1: tenants", ""),
        ("tenants = [1]\n", Code.FIELD_TYPE, ":1: tenants.0", ""),
        ("[channel]\nkey = 'k'\n", Code.FIELD_RANGE, ":1: channel", ""),
        ("[judging]\nrequirements = 'r'\n[[tenants]]\n", Code.FIELD_RANGE, ":2: judging.requirements", ""),
        (
            "[[tenants]]\n[[tenants]]\nattester_ca = 'c'\nany_admitted_host = true\n",
            Code.FIELD_RANGE,
            ":2: tenants.1",
            "",
        ),
        ("[serve]\nworkers=2\n[metrics]\nlisten='[::1]:0'\n", Code.FIELD_RANGE, ":4: metrics.listen", ""),
        ("[store]\nurl = 'mysql://h/d'\n", Code.FIELD_RANGE, ":2: store.url", ""),
        ("[ledger]\nstorage = 's3:bucket'\n", Code.FIELD_RANGE, ":2: ledger.storage", ""),
        ("[http]\nurl = 'ftp://h'\n", Code.FIELD_RANGE, ":2: http.url", ""),
        ("[http]\nurl = 'https://h:99999999'\n", Code.FIELD_RANGE, ":2: http.url", ""),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, code: Code, where: str, hint: str) -> None:
    (found,) = faults(tmp_path, text)
    assert (found.code, found.where.removeprefix(str(tmp_path / "weighbridge.toml"))) == (code, where)
    assert hint in found.hint


def test_a_type_is_said_in_the_words_of_the_file(tmp_path: Path) -> None:
    number, names = faults(tmp_path, "[serve]\nworkers = '2'\n[judging]\npolicy = 'production'\n")
    assert (number.got, names.got) == ('"2"', '"production"')
    assert names.message == "input should be a list"


def test_all_that_is_wrong_is_said(tmp_path: Path) -> None:
    found = faults(tmp_path, "[serve]\nworkers = 0\nzzz = 1\n", WEIGHBRIDGE_SERVE_LISTEN="x", WEIGHBRIDGE_HTTP_X="1")
    assert {fault.where.split(": ")[-1] for fault in found} == {
        "serve.workers", "serve.zzz", "serve.listen", "WEIGHBRIDGE_HTTP_X"
    }  # fmt: skip
    with pytest.raises(MalformedEvidence, match="and 1 more: `weighbridge config check`"):
        load(written(tmp_path, "[serve]\nworkers = 0\nzzz = 1\n"), {}, {})


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@db/x", "postgresql://db/x?password=hunter2"])
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    for found in (faults(tmp_path, f'[store]\nurl = "{url}"\n'), gather(None, {"WEIGHBRIDGE_STORE_URL": url}, {})[1]):
        assert found[0].code is Code.FIELD_RANGE
        assert "hunter2" not in str(found[0].document())
        assert "PGPASSFILE" in found[0].message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("store", "url", "postgresql://me:hunter2@db/x"),
        ("store", "url", "mysql://me:hunter2@db/x"),
        ("ledger", "storage", "s3://KEY:hunter2@bucket/x"),
        ("ledger", "storage", "s3://bucket/x?secret=hunter2"),
        ("http", "url", "https://me:hunter2@h/"),
        ("http", "url", "https://h/?token=hunter2"),
        ("serve", "listen", "me:hunter2@localhost:1"),
        ("judging", "engine", "https://me:hunter2@h/"),
        ("judging", "engine", "cross:me:hunter2@h,regorus"),
        ("serve", "workers", "me:hunter2@h"),
    ],
)
def test_no_error_repeats_a_password(tmp_path: Path, section: str, key: str, value: str) -> None:
    environment = {variable((section, key)): value}
    for found in (faults(tmp_path, f'[{section}]\n{key} = "{value}"\n'), gather(None, environment, {})[1]):
        assert len(found) == 1
        assert "hunter2" not in f"{found[0]} {found[0].document()}"


@pytest.mark.parametrize("section", ["store.url", "http.url"])
def test_an_empty_url_is_refused_in_whole_words(tmp_path: Path, section: str) -> None:
    table, _, key = section.partition(".")
    (found,) = faults(tmp_path, f'[{table}]\n{key} = ""\n')
    assert (found.message[:5], "…" in found.message) == ("must ", False)


def test_anchors_are_never_none(tmp_path: Path) -> None:
    """An empty list would be "the shipped ones" to whoever reads them, and "none" to whoever wrote it."""
    assert Settings().judging.anchors == ("shipped",)
    for text in ("[judging]\nanchors = []\n", "[[tenants]]\nanchors = []\n"):
        (found,) = faults(tmp_path, text)
        assert (found.code, found.where.endswith("anchors")) == (Code.FIELD_RANGE, True)
        assert "say `shipped`, or name a file" in found.message
    (found,) = gather(None, {"WEIGHBRIDGE_JUDGING_ANCHORS": "[]"}, {})[1]
    assert (found.code, found.where) == (Code.FIELD_RANGE, "WEIGHBRIDGE_JUDGING_ANCHORS: judging.anchors")
    one, other = load(
        written(tmp_path, "[[tenants]]\nanchors = ['shipped', 'b.json']\n[[tenants]]\n"), {}, {}
    ).settings.judged()
    assert (one.anchors, other.anchors) == (("shipped", str(tmp_path / "b.json")), ("shipped",))


def test_nothing_is_said_for_all_that_a_tenant_says_itself(tmp_path: Path) -> None:
    """The command line wins over the file, and a tenant over what is for all: neither may lose without a word."""
    file = written(tmp_path, FULL)
    by_option = {("judging", "policy"): ("--policy", ["development"])}
    for environment, options, said in (
        ({}, by_option, "--policy"),
        ({"WEIGHBRIDGE_JUDGING_POLICY": '["development"]'}, {}, "WEIGHBRIDGE_JUDGING_POLICY"),
    ):
        loaded, (found,) = gather(file, environment, options)
        assert (loaded, found.code, found.where) == (None, Code.FIELD_RANGE, f"{said}: judging.policy")
        assert f"tenants.1 for itself ({file}:18)" in found.message
    # What no tenant says is said for all.
    collateral = {"WEIGHBRIDGE_JUDGING_COLLATERAL": "/c"}
    assert {one.collateral for one in load(file, collateral, {}).settings.judged()} == {Path("/c")}


@pytest.mark.parametrize(
    ("name", "value", "code", "hint"),
    [
        ("WEIGHBRIDGE_SERVE_WORKER", "2", Code.FIELD_UNKNOWN, "did you mean WEIGHBRIDGE_SERVE_WORKERS?"),
        ("WEIGHBRIDGE_SERVER_LISTEN", "h:1", Code.FIELD_UNKNOWN, "did you mean WEIGHBRIDGE_SERVE_LISTEN?"),
        ("WEIGHBRIDGE_HTTP_ANYTHING", "1", Code.FIELD_UNKNOWN, "weighbridge config keys"),
        ("WEIGHBRIDGE_TENANTS_0_POLICY", "x", Code.FIELD_UNKNOWN, "tenants stand in the file"),
        ("WEIGHBRIDGE_SERVE_WORKERS", "four", Code.NOT_TOML, "WEIGHBRIDGE_SERVE_WORKERS='4'"),
        ("WEIGHBRIDGE_SERVE_WORKERS", "4\nvalue2 = 1", Code.NOT_TOML, ""),
        ("WEIGHBRIDGE_SERVE_WORKERS", "4.0", Code.FIELD_TYPE, ""),
        ("WEIGHBRIDGE_JUDGING_POLICY", "production", Code.NOT_TOML, '["a", "b"]'),
        ("WEIGHBRIDGE_HTTP_PLAIN", "yes", Code.NOT_TOML, "true"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(name: str, value: str, code: Code, hint: str) -> None:
    loaded, found = gather(None, {name: value}, {})
    assert (loaded, [fault.code for fault in found]) == (None, [code])
    assert name in found[0].where
    assert hint in found[0].hint


@pytest.mark.parametrize(
    "name",
    [
        "WEIGHBRIDGE_VECTORS", "WEIGHBRIDGE_TELEMETRY", "WEIGHBRIDGE_WORKLOAD", "WEIGHBRIDGE_PORT_FILE",
        "WEIGHBRIDGE_TLS_KEY", "WEIGHBRIDGE_GATE_STATE", "WEIGHBRIDGE_SERVICE_HOST", "WEIGHBRIDGE_HTTP_SERVICE_HOST",
        "WEIGHBRIDGE_HTTP_PORT", "WEIGHBRIDGE_HTTP_PORT_8080_TCP_ADDR", "PATH",
    ],
)  # fmt: skip
def test_others_variables_are_left_alone(name: str) -> None:
    assert load(None, {name: "tcp://10.0.0.1:80"}, {}).settings == Settings()


def test_every_key_has_a_name_of_its_own_and_says_what_it_is() -> None:
    keys = keys_of()
    assert len({variable(key) for key in keys}) == len(keys)
    assert all(about(field).shape and field.description for field in keys.values())
    assert set(Tenant.model_fields) == set(Judging.model_fields)


def test_limits_are_those_of_the_service(tmp_path: Path) -> None:
    assert set(LimitsSection.model_fields) | {"peer", "tenant", "total"} == {one.name for one in fields(Limits)}
    assert set(ShareSection.model_fields) == {one.name for one in fields(Share)}
    text = "[limits]\ndrain = 3\n[peer_limits]\nstreams = 2\n[tenant_limits]\ncalls = 100\n"
    limits = load(written(tmp_path, text), {"WEIGHBRIDGE_TOTAL_LIMITS_CALLS": "200"}, {}).settings.service_limits()
    assert (limits.drain, limits.peer.streams, limits.tenant.calls, limits.total.calls) == (3, 2, 100, 200)
    assert (limits.credit, limits.peer.sessions) == (Limits().credit, Limits().peer.sessions)
    for text_, seconds in (("2.5", 2.5), ("3", 3)):
        assert load(None, {"WEIGHBRIDGE_LIMITS_HANDSHAKE": text_}, {}).settings.service_limits().handshake == seconds
    # Of three workers each has its part; a peer's few connections may all be one worker's.
    limits = load(written(tmp_path, f"{text}[serve]\nworkers = 3\n"), {}, {}).settings.service_limits()
    assert (limits.peer.streams, limits.tenant.streams, limits.total.streams) == (2, 6667, 6667)
    assert (limits.peer.calls, limits.tenant.calls, limits.total.calls, limits.connections) == (34, 34, 1366, 8334)
    (found,) = faults(tmp_path, "[peer_limits]\nstreams = 30000\n")
    assert (found.code, found.where) == (Code.FIELD_RANGE, "limits")
    (found,) = faults(tmp_path, "[limits]\ndrain = inf\n")
    assert found.where.endswith(":2: limits.drain")


def test_rows_of_what_ended_are_kept_for_a_month_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    assert load(None, {}, {}).settings.store.kept == timedelta(days=30)
    assert load(written(tmp_path, "[store]\nkeep_ended_days = 0\n"), {}, {}).settings.store.kept is None
    environment = {"WEIGHBRIDGE_STORE_KEEP_ENDED_DAYS": "7"}
    assert load(written(tmp_path, "[store]\nkeep_ended_days = 0\n"), environment, {}).settings.store.kept == timedelta(
        7
    )
    for wrong in ("-1", "36526", "1.5", '"forever"'):
        (found,) = faults(tmp_path, f"[store]\nkeep_ended_days = {wrong}\n")
        assert found.where.endswith(":2: store.keep_ended_days")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        load(tmp_path / "none", {}, {})
    assert caught.value.code is Code.FILE_UNREADABLE
    with pytest.raises(EnvironmentFault):
        load(tmp_path, {}, {})
    big = tmp_path / "big"
    big.write_bytes(b"#" * (CONFIG_MAX + 1))
    with pytest.raises(MalformedEvidence) as too_large:
        load(big, {}, {})
    assert too_large.value.code is Code.TOO_LARGE


def _nested(depth: int) -> bytes:
    return b"a = " + b"[" * depth + b"]" * depth


_PIECES = st.sampled_from([
    "[serve]", "[[tenants]]", "[judging.x]", "serve", "workers", "listen", "=", '"', "'''", '"""', "\\", "[", "]", "{",
    "}", "\n", "#", ".", ",", "1979-05-27", "9" * 5000, "nan", "true", "\x00", "é", "policy", " ", "\r\n", "a",
])  # fmt: skip


@given(st.binary(max_size=200) | st.lists(_PIECES, max_size=40).map(lambda parts: "".join(parts).encode()))
@example(_nested(20_000))
@example(b"x = " + b"9" * 5000)
@example(b"[serve]\nworkers = 1979-05-27T07:32:00Z")
@example(b"tenants = [[[]]]")
@example(b"[serve.state]\n[serve.state.more]")
@example(b"'' = 1")
@example(b"a" + b".a" * 5000 + b" = 1")
def test_any_bytes_are_refused_clearly(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    loaded, found = gather(file, {}, {})
    assert (loaded is None) == bool(found)
    assert all(isinstance(error, MalformedEvidence) and str(file) in error.where for error in found)


@given(st.lists(_PIECES, max_size=40).map("".join))
def test_positions_end_for_whatever_is_toml(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        lines_of(text)
        return
    lines = lines_of(text)
    assert {path[0] for path in lines if path} == set(document)


def test_positions() -> None:
    text = 'a = """\n[b]\nc = 1\n"""\n[d]\n"e f" = [\n  "]", # ]\n]\ng.h = { i = 1 }\n'
    text += "[[j]]\nk = 1\n[[j]]\nk = 2\n[j.l]\nm = 1\n"
    assert lines_of(text) == {
        ("a",): 1, ("d",): 5, ("d", "e f"): 6, ("d", "g"): 9, ("d", "g", "h"): 9,
        ("j", 0): 10, ("j", 0, "k"): 11, ("j", 1): 12, ("j", 1, "k"): 13, ("j", 1, "l"): 14, ("j", 1, "l", "m"): 15,
    }  # fmt: skip
