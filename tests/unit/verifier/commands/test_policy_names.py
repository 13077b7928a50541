"""``--policy NAME``: what comes with Weighbridge is found by its name, and whoever misspells it is told the names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.policy.policy_set import LIBRARY, SHIPPED
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied
from weighbridge.proto.policy_bundle import PolicyBundle
from weighbridge.verifier.commands.outcome import load_policy, policy_named
from weighbridge.verifier.keys import sign_es256

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = Reference({}, {}, {})


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_by_its_name(name: str) -> None:
    for found in (load_policy([name], REFERENCE), policy_named([name], REFERENCE)):
        assert [module.name for module in found.modules] == [LIBRARY, f"weighbridge/{name}.rego"]


@pytest.mark.parametrize("names", [["prodution"], ["lib"], ["production", "audit_only"]])
def test_another_name_is_a_file_that_is_not_there(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for find in (load_policy, policy_named):
        with pytest.raises(EnvironmentFault) as caught:
            _ = find(names, REFERENCE)
        assert caught.value.code is Code.FILE_UNREADABLE
        assert all(name in (caught.value.hint or "") for name in SHIPPED)


def bundle(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    content = PolicyBundle(
        owner="Acme",
        name="gate",
        tenant=None,
        number=1,
        issued_ns=1,
        not_before_ns=1,
        not_after_ns=2,
        files=(("data.json", b"{}"), ("gate.rego", b"package weighbridge.policy\n")),
        note="",
    )
    signed = content.sign(kid=cose.thumbprint(key.public_key()), signer=lambda data: sign_es256(key, data))
    (path / "gate.policy").write_bytes(signed)
    return path / "gate.policy"


def test_tools_take_what_a_signed_bundle_has_in_it(tmp_path: Path) -> None:
    found = policy_named([str(bundle(tmp_path))], REFERENCE)
    assert {name for name, _ in found.files} == {"data.json", "gate.rego", LIBRARY}


def test_what_decides_takes_no_bundle_in_place_of_a_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyDenied, match="it is a signed policy bundle") as caught:
        _ = load_policy([str(bundle(tmp_path))], REFERENCE)
    assert caught.value.code is Code.POLICY_INVALID
    assert "--policy-bundle" in (caught.value.hint or "")


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MalformedEvidence, match="not a policy bundle") as caught:
        _ = policy_named([str(path)], REFERENCE)
    assert str(path) in caught.value.where
