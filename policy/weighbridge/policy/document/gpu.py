"""What the document says of each device: GPUs, and the switches between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

__all__ = ["Gpu", "GpuDifference", "GpuManifest", "Revocation"]

Revocation = Literal["absent", "good", "revoked", "hold", "unknown", "stale"]


@dataclass(frozen=True, slots=True)
class GpuManifest:
    """A manifest of the maker's with which a device's measurements were compared."""

    owner: Annotated[Literal["driver", "vbios"], "whose measurements it names"]
    id: Annotated[str, "the identifier under which its maker hands it out"]
    issued: Annotated[str, "when, an RFC 3339 time in UTC"]
    digest: Annotated[str, "SHA-256 of the file, 64 hexadecimal digits"]
    revocation: Annotated[Revocation, "what is known of its signer's certificates, as of the device's own"] = "absent"


@dataclass(frozen=True, slots=True)
class GpuDifference:
    """A measurement that is none of those that the maker's manifest names."""

    index: Annotated[int, "its number, counted from 0"]
    owner: Annotated[Literal["driver", "vbios"], "whose manifest names what it should be"]
    name: Annotated[str, "what the manifest calls it"]
    expected: Annotated[tuple[str, ...], "what the manifest accepts, hexadecimal"]
    got: Annotated[str | None, "what the device reported, hexadecimal; null where it has no such measurement"]
    causes: Annotated[str, "guesses at why, for people"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One enrolled device, a GPU or a switch.

    What is signed and what the host says have different names: ``signed_*`` is in the device's signed bytes, and
    ``cc_mode_host_claim`` is the driver's unsigned word, which can refuse and never admit.
    """

    identity: Annotated[str, "the device's own key: SHA-256 of its SubjectPublicKeyInfo, 64 hexadecimal digits"]
    platform: Annotated[str, "who vouches for it: nvidia, or insecure-emulated for software"]
    architecture: Annotated[str | None, "such as GH100, or LS_10 for a switch; null where it is not known"]
    driver: Annotated[str | None, "the driver's version as reported; null for switches"]
    vbios: Annotated[str | None, "the VBIOS's version as reported"]
    measurements_digest: Annotated[
        str | None, "SHA-256 over all its measurements, 64 hexadecimal digits: what gpu_measurements lists"
    ]
    fwid: Annotated[
        Literal["matches", "missing"],
        "whether its certificate names the firmware that it reports; missing where there is nothing to compare, as of "
        "switches",
    ]
    reference: Annotated[
        Literal["match", "mismatch", "absent"],
        "its measurements compared with its maker's manifests and the relying party's digests; absent where nobody "
        "says what is right",
    ]
    revocation: Annotated[
        Revocation,
        "of its certificates; absent where nothing is at hand, stale where it is too old, hold where it is suspended",
    ]
    cc_mode_host_claim: Annotated[
        Literal["on", "off", "devtools"] | None,
        "whether confidential computing is on, by the host's unsigned word; null where it does not say",
    ]
    reported_in_window: Annotated[bool, "whether it signed a report in this window, or in an earlier one"]
    kind: Annotated[Literal["gpu", "switch"], "a GPU, or a switch between GPUs"] = "gpu"
    model: Annotated[str, "the model that its certificate names; empty where it names none"] = ""
    reference_by: Annotated[
        Literal["none", "manifests", "relying-party", "both"], "by whose word reference is what it is; both must agree"
    ] = "none"
    manifests: Annotated[tuple[GpuManifest, ...], "the maker's manifests that were compared"] = ()
    missing: Annotated[tuple[str, ...], "identifiers of the maker's manifests that are not at hand"] = ()
    mismatches: Annotated[int, "how many measurements differ from the manifests"] = 0
    differences: Annotated[tuple[GpuDifference, ...], "the first 8 of them"] = ()
    conflicts: Annotated[tuple[int, ...], "numbers of measurements that two manifests claim"] = ()
    uncovered: Annotated[tuple[int, ...], "numbers of measurements that are not zero and in no manifest"] = ()
    revocation_detail: Annotated[str, "what revocation rests on, for people"] = ""
    minimum: Annotated[
        Literal["none", "met", "below", "unknown"],
        "whether driver and VBIOS are as new as gpu_minimum of the reference values demands; none where it demands "
        "nothing of the architecture",
    ] = "none"
    signed_protected_pcie: Annotated[
        bool | None, "whether the device's signed bytes name protected PCIe; null where they do not say"
    ] = None
    signed_feature: Annotated[
        Literal["spt", "mpt", "ppcie"] | None,
        "the kind of confidential mode that the signed bytes name: one GPU passed through, several, or protected PCIe; "
        "null where they do not say; not that it is on",
    ] = None
    signed_locked: Annotated[
        bool | None, "whether a switch signs that its host cannot set it up anew; null for GPUs"
    ] = None
