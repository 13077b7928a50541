"""The paravisor's report: framing, claims, and the key they name."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from fakes.forged_snp import ForgedSnp, hcl_claims, hcl_frame, jwk, rsa_key
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tee import hcl
from weighbridge.proto.tee.hcl import VmConfiguration

AK = rsa_key("ak").public_key()
HARDWARE = ForgedSnp.create("Genoa").report()
CLAIMS = hcl_claims(AK)
HONEST = hcl_frame(2, HARDWARE, CLAIMS)


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        hcl.parse(data)
    return caught.value.code


def claims(**changes: object) -> Code:
    return refused(hcl_frame(2, HARDWARE, hcl_claims(AK, **changes)))


@pytest.mark.parametrize(("number", "kind"), [(2, "sev-snp"), (4, "tdx")])
@pytest.mark.parametrize("size", [0, 2600, 4096])
def test_a_report(number: int, kind: str, size: int) -> None:
    report = hcl.parse(hcl_frame(number, HARDWARE, CLAIMS, size=size))
    assert report.kind == kind
    assert (report.hardware_report, report.claims) == (HARDWARE, CLAIMS)
    assert report.ak_spki == AK.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert report.configuration == VmConfiguration(
        secure_boot=True,
        tpm_persisted=False,
        console_enabled=True,
        vm_unique_id="00000000-0000-4000-8000-000000000000",
    )


def test_what_the_paravisor_does_not_say() -> None:
    report = hcl.parse(hcl_frame(2, HARDWARE, hcl_claims(AK, **{"vm-configuration": {"something": "new"}})))
    assert report.configuration == VmConfiguration(
        secure_boot=None, tpm_persisted=None, console_enabled=None, vm_unique_id=None
    )


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"HCLB"),
        (4, b"\0"),
        (4, b"\3"),
        (8, b"\0"),
        (12, b"\1"),
        (16, b"\1"),
        (31, b"\1"),
        (1216, b"\0"),
        (1220, b"\2"),
        (1224, b"\3"),
        (1228, b"\2"),
        (1228, b"\3"),
        (1232, b"\0\0"),
        (1232, b"\xff\xff\xff\xff"),
        (1236 + len(CLAIMS), b"\1"),
        (len(HONEST) - 1, b"\1"),
    ],
)
def test_framing(offset: int, value: bytes) -> None:
    assert refused(HONEST[:offset] + value + HONEST[offset + len(value) :]) is Code.HCL_REPORT


@pytest.mark.parametrize("size", [0, 31, 1236, 16 * 1024 + 1])
def test_sizes(size: int) -> None:
    assert refused(HONEST.ljust(size, b"\0")[:size]) is Code.HCL_REPORT


def test_a_report_cut_off() -> None:
    assert refused(HONEST[: 1236 + len(CLAIMS) - 1]) is Code.HCL_REPORT


def modulus(*, bits: int, even: bool = False) -> str:
    number = 2**bits - 1 - even
    return base64.urlsafe_b64encode(number.to_bytes(-(-bits // 8), "big")).rstrip(b"=").decode()


def test_keys() -> None:
    honest = jwk("HCLAkPub", AK, "sign")
    listed: tuple[object, ...] = (
        None,
        {},
        [],
        ["HCLAkPub"],
        [jwk("HCLEkPub", AK, "sign")],
        [honest, honest],
        [honest | {"kty": "EC"}],
        [honest | {"e": "Aw"}],
        # As reports of early 2023 have it: a key that is not for signing is no attestation key.
        [honest | {"key_ops": ["encrypt"]}],
        [honest | {"key_ops": "sign"}],
        [honest | {"key_ops": ["sign", "decrypt"]}],
        [honest | {"n": None}],
        [honest | {"n": modulus(bits=2047)}],
        [honest | {"n": modulus(bits=1024)}],
        [honest | {"n": modulus(bits=2056)}],
    )
    for keys in listed:
        assert claims(keys=keys) is Code.HCL_REPORT


def test_a_modulus_that_is_none() -> None:
    honest = jwk("HCLAkPub", AK, "sign")
    assert claims(keys=[honest | {"n": "++++"}]) is Code.NOT_BASE64
    assert claims(keys=[honest | {"n": modulus(bits=2048, even=True)}]) is Code.KEY_MALFORMED


@pytest.mark.parametrize("configuration", [None, [], {"secure-boot": 1}, {"vmUniqueId": 7}, {"vmUniqueId": "x" * 513}])
def test_configuration(configuration: object) -> None:
    assert claims(**{"vm-configuration": configuration}) is Code.HCL_REPORT


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", Code.NOT_JSON),
        (b"[]", Code.HCL_REPORT),
        (b'{"keys":[],"keys":[]}', Code.DUPLICATE_KEY),
        (b"\xff", Code.NOT_UTF8),
    ],
)
def test_claims_that_are_none(text: bytes, code: Code) -> None:
    assert refused(hcl_frame(2, HARDWARE, text)) is code


@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    assert refused(data) is Code.HCL_REPORT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["keys", "vm-configuration", "user-data", "x"]), JSON))
def test_any_claims(document: dict[str, object]) -> None:
    refused(hcl_frame(2, HARDWARE, json.dumps(document).encode()))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "kid": JSON,
            "kty": JSON | st.just("RSA"),
            "e": JSON | st.just("AQAB"),
            "key_ops": JSON | st.just(["sign"]),
            "n": JSON | st.text(alphabet="ABCw_-", min_size=342, max_size=342),
        },
    )
)
def test_any_key(changes: dict[str, object]) -> None:
    try:
        hcl.parse(hcl_frame(2, HARDWARE, hcl_claims(AK, keys=[jwk("HCLAkPub", AK, "sign") | changes])))
    except MalformedEvidence as error:
        assert error.code in {Code.HCL_REPORT, Code.NOT_BASE64, Code.KEY_MALFORMED}  # noqa: PT017 - some changes change nothing that counts
