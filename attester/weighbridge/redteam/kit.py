"""What the red team's hosts are made of, and what a deployment is given so that it lets them in.

A directory: the seed of the authority that certifies their TPMs, the vendor of their GPUs, a model of one file. All of
it is of the platform ``insecure-emulated``, which production policies refuse, whoever believes its roots.

======================  ========================================================  ================================
``seed``, ``gpus``      private keys (mode 0600): who has them can make hosts      for nobody else
``anchors.json``        the roots of TPMs, GPUs and reference manifests            ``serve --anchors``
``gpus/rims``           what the GPUs should measure                               ``weighbridge collateral import``
``model.json``          the manifest of the model that the hosts declare           ``serve --manifest``
``reference.json``      reference values that accept this model, and nothing else  ``serve --reference``
======================  ========================================================  ================================
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.attester import durable
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.weights import measure
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.manifest import Manifest
from weighbridge.redteam.soft_authority import EMULATED, SoftAuthority
from weighbridge.redteam.soft_tpm import SoftTpm
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.certs import load_certificate

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor

__all__ = ["Kit"]

_SEED_SIZE: Final = 32
_SEED_MAX: Final = 256
_PUBLIC: Final = 0o644
_MODEL: Final = "weighbridge-redteam"
_SOURCE: Final = "the red team's kit: whoever has it can make such hosts"


@dataclass(frozen=True, slots=True)
class Kit:
    """The makers of hosts, and the model that these declare. ``model`` is where its files lie, if they do."""

    authority: SoftAuthority
    vendor: EmulatedVendor
    manifest: Manifest
    model: Path | None

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A new kit in ``directory``, which must not exist.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE`` (also when it exists) or ``DISK_FULL``.
        """
        if directory.exists():
            raise EnvironmentFault(
                Code.FILE_UNWRITABLE, "it exists already", where=str(directory), hint="choose another directory"
            )
        durable.make_directory(directory / "model")
        durable.write_file(directory / "model" / "weights.bin", secrets.token_bytes(1024), mode=_PUBLIC)
        durable.write_file(directory / "model.json", measure(directory / "model", name=_MODEL).to_json(), mode=_PUBLIC)
        EmulatedGpus.open(directory / "gpus", 1)
        durable.write_file(directory / "seed", secrets.token_hex(_SEED_SIZE).encode())
        kit = cls.open(directory)
        durable.write_file(directory / "anchors.json", kit.anchors().encode(), mode=_PUBLIC)
        accepted = Reference({kit.manifest.digest.hex(): kit.manifest.name}, {}, {})
        durable.write_file(directory / "reference.json", accepted.to_json(), mode=_PUBLIC)
        return kit

    @classmethod
    def open(cls, directory: Path, *, manifest: Manifest | None = None, model: Path | None = None) -> Self:
        """The kit in ``directory``; its hosts declare ``manifest``, whose files lie at ``model``, instead of its own.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE`` or ``STATE_CORRUPT``.
        """
        try:
            seed = durable.read_file(directory / "seed", limit=_SEED_MAX, what="the kit's seed").decode("ascii")
            own = Manifest.from_json(
                durable.read_file(directory / "model.json", limit=limits.MANIFEST_JSON_MAX, what="the kit's manifest")
            )
        except (UnicodeDecodeError, MalformedEvidence) as error:
            raise EnvironmentFault(
                Code.STATE_CORRUPT, f"not a kit: {error}", where=str(directory), hint="make one: --make-kit DIR"
            ) from error
        vendor = EmulatedGpus.open(directory / "gpus", 1).vendor
        return cls(
            SoftAuthority(seed, name=f"{EMULATED} TPM"),
            vendor,
            manifest or own,
            model if manifest else directory / "model",
        )

    def anchors(self) -> TrustAnchors:
        """Whom a deployment must believe to let these hosts in."""
        device, rim = (
            load_certificate(der, what="root")
            for der in (self.vendor.root_certificate, self.vendor.rim_root_certificate)
        )
        return TrustAnchors(
            (
                *self.authority.anchors(source=_SOURCE).anchors,
                Anchor.from_certificate("nvidia-device-root", device, platform=EMULATED, source=_SOURCE),
                Anchor.from_certificate("nvidia-rim-root", rim, platform=EMULATED, source=_SOURCE),
            )
        )

    def tpm(self) -> SoftTpm:
        """A TPM that nobody has seen before, certified by the kit's authority."""
        return SoftTpm(secrets.token_hex(_SEED_SIZE), authority=self.authority)

    def gpus(self, count: int) -> EmulatedGpus:
        """``count`` GPUs that nobody has seen before, of the kit's vendor."""
        return EmulatedGpus(self.vendor, [EmulatedH100.make(self.vendor) for _ in range(count)])
