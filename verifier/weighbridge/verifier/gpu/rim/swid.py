"""Reads the SWID tag (ISO/IEC 19770-2:2015) in which NVIDIA publishes reference measurements.

::

    SoftwareIdentity  corpus patch supplemental: false · name tagId tagVersion version
      Entity          name role
      Meta            colloquialVersion: driver's or VBIOS's version · edition: GPU or SWITCH · product: the chip
                      rim:BindingSpec RIMIM · rim:BindingSpecVersion 1.01 · the manufacturer in words
      Payload
        Resource …    index from 0 · active · alternatives n · sha384:Hash0 … Hash(n-1) · name · size 48

A driver's manifest and a VBIOS's have the same form, and nothing in them says which they are but the form of the
version: ``550.144.03``, or five bytes such as ``96.00.5E.00.01``. The board for which a VBIOS is meant, which NVIDIA's
id of its manifest names, is in no field at all.

Elements and attributes are exactly these: an unknown one may change what the others mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from weighbridge.proto import strict
from weighbridge.verifier.gpu.rim import strict_xml
from weighbridge.verifier.gpu.rim.strict_xml import Element, attributes, children, malformed

__all__ = ["HASH_SIZE", "RimEntry", "RimKind", "SwidTag", "parse"]

RimKind = Literal["driver", "vbios", "switch"]

HASH_SIZE: Final = 48
_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM: Final = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
_HASH: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_FALSE: Final = ("corpus", "patch", "supplemental")
_ROOT: Final = frozenset({*_FALSE, "name", "tagId", "tagVersion", "version"})
_ENTITY: Final = frozenset({"name", "role"})
_META: Final = frozenset(
    {
        "colloquialVersion",
        "edition",
        "product",
        "revision",
        "PayloadType",
        f"{_RIM}BindingSpec",
        f"{_RIM}BindingSpecVersion",
        f"{_RIM}PlatformManufacturerId",
        f"{_RIM}PlatformManufacturerStr",
        f"{_RIM}PlatformModel",
        f"{_RIM}FirmwareManufacturer",
        f"{_RIM}FirmwareManufacturerId",
    }
)
_FIXED: Final = {"PayloadType": "direct", f"{_RIM}BindingSpec": "RIMIM", f"{_RIM}BindingSpecVersion": "1.01"}
_RESOURCE: Final = frozenset({"type", "index", "active", "alternatives", "name", "size"})
_INDEX_MAX: Final = 255
_ALTERNATIVES_MAX: Final = 16
_TEXT_MAX: Final = 128
_PRODUCT: Final = re.compile(r"[A-Z]{2}[0-9]{2,3}")
_DRIVER: Final = re.compile(r"[0-9]{3}(?:\.[0-9]{2,3}){1,2}")
_VBIOS: Final = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}")
_TAG_ID: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class RimEntry:
    """What one measurement should be.

    Attributes:
        index: counted from 0; SPDM counts from 1.
        active: whether it is to be compared; the hashes of others mean nothing.
        hashes: any of them is right; 48 bytes each.
        name: NVIDIA's.
    """

    index: int
    active: bool
    hashes: tuple[bytes, ...]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SwidTag:
    """A well-formed tag. Says nothing of truth before the signature over its bytes is verified.

    Attributes:
        tag_id: names the tag; two issues of it have the same.
        kind: of what it states measurements, by its edition and the form of its version.
        product: the chip, such as ``GH100``.
        version: of driver or VBIOS.
        entries: in the order of the document; no index twice, at least one active.
    """

    tag_id: str
    kind: RimKind
    product: str
    version: str
    entries: tuple[RimEntry, ...]


def parse(content: bytes) -> SwidTag:
    """Parse a tag without a signature in it. Not checked: that anybody has signed it.

    Args:
        content: the canonical bytes that were signed (:attr:`.dsig.EnvelopedSignature.content`).

    Raises:
        MalformedEvidence: ``RIM_MALFORMED``, ``TOO_LARGE``, ``NOT_UTF8``, ``NOT_HEX``, ``NOT_A_NUMBER``,
            ``FIELD_RANGE``.
    """
    root = strict_xml.parse(content, where="rim")
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise malformed("not a software identity tag", "rim", expected="SoftwareIdentity", got=root.tag)
    head = attributes(root, _ROOT, where="rim")
    for name in _FALSE:
        if head[name] != "false":
            raise malformed("not a tag of what is installed", f"rim.{name}", expected="false", got=head[name])
    if not _TAG_ID.fullmatch(head["tagId"]):
        raise malformed("not a tag's id", "rim.tagId", got=head["tagId"])
    entity, meta, payload = children(root, [f"{_SWID}Entity", f"{_SWID}Meta", f"{_SWID}Payload"], where="rim")
    children(entity, [], where="rim.Entity")
    attributes(entity, _ENTITY, where="rim.Entity")
    kind, product, version = _subject(meta)
    attributes(payload, frozenset(), where="rim.Payload")
    resources = children(payload, [f"{_SWID}Resource"] * min(len(payload), _INDEX_MAX + 1), where="rim.Payload")
    entries = tuple(_entry(resource, f"rim.Resource[{number}]") for number, resource in enumerate(resources))
    indices = [entry.index for entry in entries]
    if len(set(indices)) != len(indices):
        raise malformed("an index is stated twice", "rim.Payload", got=indices)
    if not any(entry.active for entry in entries):
        # Nothing to compare would make everything match.
        raise malformed("no measurement is active", "rim.Payload")
    return SwidTag(tag_id=head["tagId"], kind=kind, product=product, version=version, entries=entries)


def _subject(meta: Element) -> tuple[RimKind, str, str]:
    where = "rim.Meta"
    children(meta, [], where=where)
    values = attributes(meta, _META, where=where)
    for name, expected in _FIXED.items():
        if values[name] != expected:
            raise malformed("not a manifest of the known form", f"{where}.{name}", expected=expected, got=values[name])
    product, edition, version = values["product"], values["edition"], values["colloquialVersion"]
    if not _PRODUCT.fullmatch(product):
        raise malformed("not a chip's name", f"{where}.product", got=product)
    if edition == "GPU" and _DRIVER.fullmatch(version):
        return "driver", product, version
    if edition in {"GPU", "SWITCH"} and _VBIOS.fullmatch(version):
        return "vbios" if edition == "GPU" else "switch", product, version
    raise malformed(
        "neither a driver's nor a VBIOS's version", f"{where}.colloquialVersion", got=f"{version} of edition {edition}"
    )


def _entry(resource: Element, where: str) -> RimEntry:
    children(resource, [], where=where)
    found = dict(resource.attrib.items())
    count = strict.decimal(found.get("alternatives", ""), what=f"{where}.alternatives", limit=_ALTERNATIVES_MAX)
    hashes = [f"{_HASH}{number}" for number in range(count)]
    attributes(resource, _RESOURCE | set(hashes), where=where)
    if not count:
        raise malformed("no hash", where)
    if (found["type"], found["size"]) != ("Measurement", str(HASH_SIZE)):
        raise malformed(
            "not a measurement", where, expected=f"Measurement, {HASH_SIZE}", got=f"{found['type']}, {found['size']}"
        )
    if found["active"] not in {"True", "False"}:
        raise malformed("neither active nor inactive", where, expected="True or False", got=found["active"])
    if len(found["name"]) > _TEXT_MAX:
        raise malformed("name is too long", where, expected=f"<= {_TEXT_MAX}", got=len(found["name"]))
    return RimEntry(
        index=strict.decimal(found["index"], what=f"{where}.index", limit=_INDEX_MAX),
        active=found["active"] == "True",
        hashes=tuple(strict.hex_decode(found[name], what=where, size=HASH_SIZE) for name in hashes),
        name=found["name"],
    )
