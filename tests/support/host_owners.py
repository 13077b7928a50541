"""Owners of hosts who sign host sets, with keys of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from fakes.soft_tpm import derive_key
from support.owners import BEGINNING, DAY, FOREVER
from support.world import NOON
from weighbridge.proto import cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.host_set import AcceptedFile, FileKind, HostSet
from weighbridge.verifier.anchors import Anchor
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.learning import order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.anchors import Purpose


def accepted(name: str, *, kind: FileKind = FileKind.CONTENT, attester: bool = False) -> AcceptedFile:
    """A file that is called ``name`` and holds it."""
    return AcceptedFile(kind, sha256(name.encode()), f"/usr/bin/{name}", attester)


@dataclass
class HostOwner:
    """A hosts' owner. Sets are valid from a day before noon until ten days after, unless a test says otherwise."""

    name: str = "Acme Hosting"
    key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = derive_key(f"host owner {self.name}")

    def anchor(
        self, purpose: Purpose = "host-owner", *, not_before: datetime = BEGINNING, not_after: datetime = FOREVER
    ) -> Anchor:
        spki = cose.spki(self.key.public_key())
        return Anchor(purpose, self.name, "weighbridge", spki, not_before, not_after, "a test")

    def content(
        self,
        pcrs: Mapping[int, Iterable[bytes]] | None = None,
        *,
        number: int = 1,
        name: str = "gpu-node",
        firmware: tuple[int, ...] | None = None,
        files: Iterable[AcceptedFile] = (),
        **changes: datetime,
    ) -> HostSet:
        """A set; ``changes`` are ``issued`` and the bounds of its validity."""
        times = {"issued": NOON - DAY, "not_before": NOON - DAY, "not_after": NOON + 10 * DAY, **changes}
        chosen = {0: [bytes(32)]} if pcrs is None else pcrs
        return HostSet(
            owner=self.name,
            name=name,
            number=number,
            issued_ns=nanoseconds(times["issued"]),
            not_before_ns=nanoseconds(times["not_before"]),
            not_after_ns=nanoseconds(times["not_after"]),
            pcrs={index: tuple(sorted(values)) for index, values in chosen.items()},
            firmware=firmware,
            files=order(files),
        )

    def sign(self, content: HostSet) -> bytes:
        """The file that is handed out."""
        return content.sign(
            kid=cose.thumbprint(self.key.public_key()), signer=lambda signed: sign_es256(self.key, signed)
        )
