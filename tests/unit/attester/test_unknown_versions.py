"""Certificates and revocation lists of a version that does not exist: refused by code wherever a file may hold one.

cryptography has an exception for these that is no ``ValueError``; found by fuzzing ``model_signing.keys:load_roots``.
"""

from __future__ import annotations

import argparse
import base64
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.model_signers import certify
from fakes.ocsp_responder import RevocableVendor, revocation_list
from weighbridge.attester.commands import tpm_arguments
from weighbridge.attester.keys import load_authority
from weighbridge.attester.model_signing.keys import load_roots
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERSION: Final = b"\xa0\x03\x02\x01\x02"
"""Version 3, as certificates state it."""


def pem(kind: str, der: bytes) -> bytes:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{body}-----END {kind}-----\n".encode()


def certificate() -> bytes:
    der = certify("x").certificate.public_bytes(Encoding.DER)
    assert VERSION in der
    return pem("CERTIFICATE", der.replace(VERSION, VERSION[:-1] + b"\x22", 1))


def crl() -> bytes:
    der = revocation_list(RevocableVendor.create().provisioner)
    return pem("X509 CRL", der.replace(b"\x02\x01\x01", b"\x02\x01\x22", 1))


def refused(call: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        call()
    return refusal.value.code


def test_roots_of_model_signers() -> None:
    assert refused(lambda: load_roots(certificate())) is Code.CERT_MALFORMED


def test_the_verifiers_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(certificate())
    assert refused(lambda: load_authority(tmp_path / "ca.pem")) is Code.CERT_MALFORMED


def test_collateral(tmp_path: Path) -> None:
    (tmp_path / "crl.pem").write_bytes(crl())
    parser = argparse.ArgumentParser()
    tpm_arguments.configure(parser)
    args = parser.parse_args(["--collateral", str(tmp_path / "crl.pem")])
    assert refused(lambda: tpm_arguments.collateral(args)) is Code.CRL_INVALID
