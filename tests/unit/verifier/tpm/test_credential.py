"""Credentials: what a TPM opens that follows the specification, and secrets that nobody can guess."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fakes.soft_tpm import SoftAuthority, SoftTpm
from weighbridge.proto.tpm import public
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.ek import VerifiedEk, verify_ek

if TYPE_CHECKING:
    from typing import Literal

AT = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITY = SoftAuthority()


def ek_of(tpm: SoftTpm) -> VerifiedEk:
    return verify_ek(public.parse(tpm.ek_public), tpm.certificate, AUTHORITY.intermediates, AUTHORITY.anchors(), at=AT)


@pytest.mark.parametrize(("kind", "sizes"), [("H-3", (16, 17, 47, 48)), ("L-1", (16, 31, 32))])
def test_the_shortest_and_the_longest_secret_are_opened(kind: Literal["H-3", "L-1"], sizes: tuple[int, ...]) -> None:
    tpm = SoftTpm(authority=AUTHORITY, ek=kind)
    ek, name = ek_of(tpm), public.parse(tpm.attestation_key()).name
    for size in sizes:
        secret = bytes(range(size))
        credential = make_credential(ek, name, secret)
        assert tpm.activate_credential(credential.id_object, credential.encrypted_secret) == secret


@pytest.mark.parametrize(("kind", "most"), [("H-3", 48), ("L-1", 32)])
def test_no_other_secret_is_sent(kind: Literal["H-3", "L-1"], most: int) -> None:
    """A shorter one could be guessed, and a TPM takes no longer one."""
    tpm = SoftTpm(authority=AUTHORITY, ek=kind)
    ek, name = ek_of(tpm), public.parse(tpm.attestation_key()).name
    for size in (0, 15, most + 1):
        with pytest.raises(ValueError, match=f"16 to {most} bytes"):
            make_credential(ek, name, bytes(size))
