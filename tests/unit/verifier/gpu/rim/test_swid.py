"""The SWID tag: every element and attribute is the known one, or the tag is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.gpu.emulated import Firmware
from weighbridge.attester.gpu.emulated_rims import gpu_manifests
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.gpu.rim import swid

DRIVER, VBIOS = gpu_manifests(Firmware())
TEXT = DRIVER.text(canonical=True)
RESOURCE = 'index="7" name='
FIRST = TEXT[TEXT.index("<ns0:Resource") : TEXT.index("</ns0:Resource>") + len("</ns0:Resource>")]


def refusal(text: str) -> Code:
    """Why the tag is refused."""
    with pytest.raises(MalformedEvidence) as caught:
        swid.parse(text.encode())
    return caught.value.code


def test_driver() -> None:
    tag = swid.parse(TEXT.encode())
    assert (tag.kind, tag.product, tag.version) == ("driver", "GH100", "580.95.05")
    assert {entry.index: entry.hashes for entry in tag.entries if entry.active} == DRIVER.active
    assert [entry.index for entry in tag.entries] == list(range(64))
    assert tag.entries[7].name == "Measurement_7"
    assert len(tag.tag_id) == 96


@pytest.mark.parametrize(
    ("edition", "version", "kind"),
    [
        ("GPU", "96.00.74.00.1A", "vbios"),
        ("SWITCH", "96.10.55.00.01", "switch"),
        ("GPU", "545.00", "driver"),
        ("GPU", "550.144.03", "driver"),
    ],
)
def test_kind_is_by_edition_and_form_of_the_version(edition: str, version: str, kind: str) -> None:
    text = replace(VBIOS, edition=edition, version=version).text(canonical=True)
    assert swid.parse(text.encode()).kind == kind


CHANGED = {
    "another root": ("SoftwareIdentity", "Other"),
    "another namespace": ("http://standards.iso.org/iso/19770/-2/2015/schema.xsd", "urn:other"),
    "another namespace of the hashes": (
        "http://www.w3.org/2001/04/xmlenc#sha384",
        "http://www.w3.org/2001/04/xmlenc#sha256",
    ),
    "another namespace of the binding": ("tcg-reference-integrity-manifest", "other"),
    "hash without a namespace": ("ns2:Hash0", "Hash0"),
    "a patch": ('patch="false"', 'patch="true"'),
    "supplemental": ('supplemental="false"', 'supplemental="true"'),
    "corpus": ('corpus="false"', 'corpus="true"'),
    "unknown attribute of the root": ('corpus="false"', 'corpus="false" media="x"'),
    "attribute of the root missing": ('tagVersion="0" ', ""),
    "id of the tag": ('tagId="', 'tagId="\u00e9'),
    "unknown attribute of the entity": ('role="', 'regid="x" role="'),
    "unknown attribute of the meta": ('edition="GPU"', 'edition="GPU" summary="x"'),
    "attribute of the meta missing": (' revision="r1"', ""),
    "binding of another kind": ('BindingSpec="RIMIM"', 'BindingSpec="other"'),
    "binding of another version": ('BindingSpecVersion="1.01"', 'BindingSpecVersion="1.02"'),
    "payload elsewhere": ('PayloadType="direct"', 'PayloadType="indirect"'),
    "edition": ('edition="GPU"', 'edition="CPU"'),
    "driver of a switch": ('edition="GPU"', 'edition="SWITCH"'),
    "version": ('colloquialVersion="580.95.05"', 'colloquialVersion="580"'),
    "version with another digit": ('colloquialVersion="580.95.05"', 'colloquialVersion="58\u0660.95.05"'),
    "version with a line break": ('colloquialVersion="580.95.05"', 'colloquialVersion="580.95.05\n"'),
    "VBIOS in lower case": ('colloquialVersion="580.95.05"', 'colloquialVersion="96.00.74.00.1a"'),
    "no version": ('colloquialVersion="580.95.05"', 'colloquialVersion=""'),
    "product": ('product="GH100"', 'product="GH100 x"'),
    "attribute of the payload": ("<ns0:Payload ", '<ns0:Payload a="b" '),
    "second payload": ("</ns0:Payload>", "</ns0:Payload><ns0:Payload></ns0:Payload>"),
    "no payload": ("ns0:Payload", "ns0:Evidence"),
    "another element in the payload": (FIRST, FIRST.replace("Resource", "File")),
    "link": ("</ns0:Payload>", '</ns0:Payload><ns0:Link href="x" rel="x"></ns0:Link>'),
    "text in the payload": ("</ns0:Payload>", "x</ns0:Payload>"),
    "text in a resource": ("</ns0:Resource>", "x</ns0:Resource>"),
    "element in a resource": ("</ns0:Resource>", "<ns0:Meta></ns0:Meta></ns0:Resource>"),
    "unknown attribute of a resource": (RESOURCE, f'minSvn="1" {RESOURCE}'),
    "type": (FIRST, FIRST.replace('type="Measurement"', 'type="Other"')),
    "size": (FIRST, FIRST.replace('size="48"', 'size="32"')),
    "activity": (FIRST, FIRST.replace('active="False"', 'active="false"')),
    "name too long": ('name="Measurement_0"', f'name="{"x" * 200}"'),
    "index twice": ('index="8"', 'index="7"'),
    "nothing active": ('active="True"', 'active="False"'),
    "fewer hashes than stated": (FIRST, FIRST.replace('alternatives="1"', 'alternatives="2"')),
    "more hashes than stated": (FIRST, FIRST.replace("ns2:Hash0=", 'ns2:Hash1="" ns2:Hash0=')),
    "another hash than stated": (FIRST, FIRST.replace("ns2:Hash0=", "ns2:Hash1=")),
    "no hash": (FIRST, FIRST.replace('alternatives="1"', 'alternatives="0"').replace(f' ns2:Hash0="{"00" * 48}"', "")),
}


@pytest.mark.parametrize("case", CHANGED)
def test_not_of_the_known_form(case: str) -> None:
    old, new = CHANGED[case]
    assert old in TEXT
    assert refusal(TEXT.replace(old, new)) is Code.RIM_MALFORMED


def hash_of(text: str) -> str:
    """The first entry with another hash."""
    return TEXT.replace(FIRST, FIRST.replace("00" * 48, text))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (TEXT.replace('index="8"', 'index=" 8"'), Code.NOT_A_NUMBER),
        (TEXT.replace('index="8"', 'index="08"'), Code.NOT_A_NUMBER),
        (TEXT.replace('index="8"', 'index="256"'), Code.FIELD_RANGE),
        (TEXT.replace('alternatives="1"', 'alternatives=""', 1), Code.NOT_A_NUMBER),
        (TEXT.replace('alternatives="1"', 'alternatives="17"', 1), Code.FIELD_RANGE),
        (TEXT.replace(' alternatives="1"', "", 1), Code.NOT_A_NUMBER),
        (hash_of("00" * 47), Code.FIELD_RANGE),
        (hash_of("00" * 47 + "0"), Code.NOT_HEX),
        (hash_of("00" * 49), Code.FIELD_RANGE),
        (hash_of("AB" * 48), Code.NOT_HEX),
        (hash_of(" " + "00" * 48), Code.NOT_HEX),
        (hash_of(""), Code.FIELD_RANGE),
        (TEXT.replace("<ns0:Resource", " " * 300_000 + "<ns0:Resource", 1), Code.TOO_LARGE),
    ],
)
def test_values(text: str, code: Code) -> None:
    assert text != TEXT
    assert refusal(text) is code


def test_more_measurements_than_a_report_can_have() -> None:
    many = "".join(FIRST.replace('index="0"', f'index="{index}"') for index in range(64, 300))
    assert refusal(TEXT.replace("    </ns0:Payload>", f"{many}</ns0:Payload>")) is Code.RIM_MALFORMED


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        swid.parse(data)


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 30), st.text(max_size=5))
def test_any_edit(start: int, size: int, new: str) -> None:
    try:
        swid.parse((TEXT[:start] + new + TEXT[start + size :]).encode("utf-8", "surrogatepass"))
    except MalformedEvidence:
        return
