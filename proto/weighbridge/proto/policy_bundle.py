"""A policy bundle: a policy's files as their author signed them, which revision, for whom. Parsed, not verified.

A COSE_Sign1 (:mod:`.cose`) of type :data:`BUNDLE_TYP` over deterministic CBOR. A bundle replaces every earlier one of
its owner, tenant and name: ``number`` grows with each, so that an old one cannot be brought back. Byte layout:
``docs/protocol.md`` §9.4.

There is no place in it for reference values, for the shipped library or for tests: rules read reference values as
``data.reference``, which only the relying party writes, and :data:`DATA` as ``data.author``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, cose, limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["BUNDLE_TYP", "DATA", "PolicyBundle", "SignedPolicyBundle", "is_file_name", "is_signed"]

BUNDLE_TYP: Final = "application/vnd.weighbridge.policy-bundle+cose"
DATA: Final = "data.json"
"""The name of the author's own data."""
_TYPE: Final = "weighbridge/v1/policy-bundle"
_TENANT_MAX: Final = 64
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,94}\.rego"
_MODULE: Final = re.compile(_NAME, re.ASCII)
# Of policies that were written for other verifiers: for which, maybe in the Rego of before OPA 1.0, and their values.
# Tag 18 before an array of four: RFC 9052 §2.
_TAGGED: Final = b"\xd2\x84"
_FOREIGN: Final = re.compile(rf"foreign/(?:values\.json|[a-z][a-z-]{{0,30}}/(?:v0/)?{_NAME})", re.ASCII)
_TEST: Final = "_test.rego"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBundle:
    """A well-formed policy bundle. Says nothing of truth, nor whether the files are a policy.

    Times are nanoseconds since 1970; ``not_after_ns`` is inclusive. ``tenant`` is whose sessions it is for; ``None``
    for those of every tenant that has no bundle of its own. ``files`` are names and exact bytes, ascending by name:
    modules, and :data:`DATA` where there is any.
    """

    owner: str
    name: str
    tenant: str | None
    number: int
    issued_ns: int
    not_before_ns: int
    not_after_ns: int
    files: tuple[tuple[str, bytes], ...]
    note: str = ""

    def encode(self) -> bytes:
        """The payload's bytes."""
        return cbor.encode(
            {
                0: _TYPE,
                1: self.owner,
                2: self.name,
                3: self.tenant,
                4: self.number,
                5: self.issued_ns,
                6: self.not_before_ns,
                7: self.not_after_ns,
                8: [[name, content] for name, content in self.files],
                9: self.note,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a payload.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` of a consistent bundle would not have written.
        """
        fields = cbor.read_versioned(data, version=_TYPE, limit=limits.POLICY_BUNDLE_MAX, what="policy bundle")
        owner, name = fields.text(1), fields.text(2)
        check_name(owner, where="policy bundle.owner")
        check_name(name, where="policy bundle.name")
        tenant = fields.optional_text(3, limit=_TENANT_MAX)
        if tenant is not None:
            check_name(tenant, where="policy bundle.tenant")
        number = fields.integer(4, low=1, high=2**53 - 1)
        issued_ns, not_before_ns, not_after_ns = fields.uint(5), fields.uint(6), fields.uint(7)
        if not_before_ns > not_after_ns:
            raise MalformedEvidence(Code.FIELD_RANGE, "ends before it begins", where="policy bundle[7]")
        rows = fields.array(8, limit=limits.POLICY_BUNDLE_FILES_MAX)
        note = fields.text(9)
        if note:
            check_name(note, where="policy bundle.note")
        fields.end()
        files = tuple(_file(row, f"policy bundle.files[{number}]") for number, row in enumerate(rows))
        _check_files([file for file, _ in files])
        return cls(
            owner=owner,
            name=name,
            tenant=tenant,
            number=number,
            issued_ns=issued_ns,
            not_before_ns=not_before_ns,
            not_after_ns=not_after_ns,
            files=files,
            note=note,
        )

    def sign(self, *, kid: bytes, signer: Callable[[bytes], bytes]) -> bytes:
        """The signed bundle: the file that is handed out.

        Args:
            kid: SHA-256 of the signer's SubjectPublicKeyInfo, 32 bytes.
            signer: as for :func:`.cose.sign`; the key stays with the caller.

        Raises:
            MalformedEvidence: the bundle contradicts itself, or is too large to be read back.
        """
        payload = self.encode()
        type(self).parse(payload)
        signed = cose.sign(payload, kid=kid, typ=BUNDLE_TYP, signer=signer)
        SignedPolicyBundle.parse(signed)
        return signed


@dataclass(frozen=True, slots=True)
class SignedPolicyBundle:
    """A policy bundle with its signature, which is not checked. ``digest`` is the SHA-256 of the file."""

    message: cose.CoseSign1
    claimed: PolicyBundle
    digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the file.

        Raises:
            MalformedEvidence: ``COSE_HEADER``, or as :meth:`PolicyBundle.parse`.
        """
        message = cose.parse(data, typ=BUNDLE_TYP, limit=limits.POLICY_BUNDLE_MAX, what="policy bundle")
        return cls(message, PolicyBundle.parse(message.payload), sha256(data))


def is_signed(data: bytes) -> bool:
    """Whether ``data`` begins as a signed file does; no module of a policy begins so."""
    return data.startswith(_TAGGED)


def is_file_name(name: str) -> bool:
    """Whether a file of this name may be in a bundle: a module that is no test, :data:`DATA`, a foreign policy.

    No other directory can be in it: the shipped library, in ``weighbridge/``, cannot be replaced.
    """
    return name == DATA or _FOREIGN.fullmatch(name) is not None or _is_module(name)


def _is_module(name: str) -> bool:
    return _MODULE.fullmatch(name) is not None and not name.endswith(_TEST)


def _file(value: cbor.CborValue, where: str) -> tuple[str, bytes]:
    row = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=2, size=2))), where)
    name, content = row.text(0), row.octets(1, limit=limits.POLICY_BUNDLE_MAX)
    if not is_file_name(name):
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "not the name of a policy's file",
            where=f"{where}.name",
            expected=f"{DATA}, or up to 100 letters, digits, '.', '_' and '-' ending in .rego and not in {_TEST}",
            got=ascii(name),
        )
    return name, content


def _check_files(names: Sequence[str]) -> None:
    where = "policy bundle.files"
    for before, after in pairwise(names):
        if before == after:
            raise MalformedEvidence(Code.DUPLICATE_KEY, "a file stands twice", where=where, got=after)
        if before > after:
            raise MalformedEvidence(Code.NOT_DETERMINISTIC, "files are not in order", where=where, got=after)
    if not any(_is_module(name) for name in names):
        raise MalformedEvidence(Code.FIELD_RANGE, "no module is among the files", where=where)
