"""Whose attestation key it is: NVIDIA's chains are accepted, every broken composition is refused by its code."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from weakref import ref

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.cloud_authority import key_usage
from gpu_support import AT, Certificate, chain_of, der, emulated, emulated_anchors, vector_chain, wheel_chain
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor, Silicon
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier import anchors, certs
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.gpu import (
    GPUS_AND_SWITCHES,
    ChainCache,
    VerifiedGpuChain,
    check_architecture,
    verify_chain,
)
from weighbridge.verifier.gpu.chain import without_number

DEFAULT = anchors.default()


def refusal(chain: tuple[bytes, ...], believed: TrustAnchors = DEFAULT, *, at: datetime = AT) -> Code:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify_chain(chain, believed, at=at)
    return caught.value.code


def forged(*orders: Certificate) -> tuple[tuple[bytes, ...], TrustAnchors]:
    """A chain made to order, and anchors that believe its last certificate."""
    root = orders[-1].issue(orders[-1])
    anchor = Anchor.from_certificate("nvidia-device-root", root, platform="insecure-emulated", source="a test")
    return der(chain_of(*orders)), TrustAnchors((anchor,))


LEAF = Certificate("GH100 A01 GSP FMC LF", ca=None, signs=False)
BROM = Certificate("GH100 A01 GSP BROM")
PROVISIONER = Certificate("insecure GH100 Provisioner ICA 1")
ROOT = Certificate("insecure Device Identity CA")


def test_nvidias_chain(nvidia_wheel: Path) -> None:
    verified = verify_chain(wheel_chain(nvidia_wheel), DEFAULT, at=AT)
    assert (verified.platform, verified.architecture, verified.model) == ("nvidia", "GH100", "GH100 A01 GSP BROM")
    assert verified.identity.hex() == "0456ef114633549618e8fbe54ece97118b2f034f11b036980137a15264a46d07"
    assert (verified.fwid or b"").hex().startswith("f5c384ae")
    assert verified.not_before == datetime(2022, 3, 1, tzinfo=UTC)


def test_emulated_chain_is_accepted_with_its_anchor_only() -> None:
    """The default anchors refuse an emulated hierarchy; passed in, it says what it is."""
    (device,), believed = emulated()
    verified = verify_chain(device.keys.chain, believed, at=AT)
    assert (verified.platform, verified.identity) == ("insecure-emulated", device.identity)
    assert verified.fwid == device.firmware.fwid
    assert refusal(device.keys.chain) == Code.CHAIN_UNTRUSTED


def test_blackwell_is_accepted_as_what_it_is(vectors_dir: Path) -> None:
    """A16."""
    chain = vector_chain(vectors_dir, "attsdk-testdata-sample_attestation_data-gpu/blackwellCertChain.txt")
    verified = verify_chain(chain, DEFAULT, at=AT)
    assert verified.architecture == "GB100"
    check_architecture(verified, "GB100")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("coco-trustee/hopper_cert_chain_case2.txt", Code.CHAIN_LENGTH),  # root only
        ("coco-trustee/hopper_cert_chain_case3.txt", Code.CHAIN_BROKEN),  # a link is missing
        ("coco-trustee/hopper_cert_chain_case4.txt", Code.GPU_CHAIN),  # leaf is missing
        ("go-nvtrust/invalidCertChain.txt", Code.CHAIN_BROKEN),
        ("attsdk-testdata/switchCertChain.txt", Code.GPU_ARCH),
        ("attsdk-testdata-sample_attestation_data-switch/switchCertChain.txt", Code.GPU_ARCH),
    ],
)
def test_captured_chains_that_are_refused(vectors_dir: Path, name: str, code: Code) -> None:
    """A15, A24."""
    assert refusal(vector_chain(vectors_dir, name)) == code


@pytest.mark.parametrize(
    "name",
    [
        "coco-trustee/hopper_cert_chain_case1.txt",
        "coco-trustee/hopper_coco_certs1.txt",
        "go-nvtrust/gpuAkCertChain.txt",
        "attsdk-testdata/hopperCertChain.txt",
        "attsdk-testdata-sample_attestation_data-gpu/hopperCertChain.txt",
        "attsdk-testdata-sample_attestation_data-gpu/hopperCertChainExpired.txt",  # its RIM is, the chain is not
    ],
)
def test_captured_chains_that_are_accepted(vectors_dir: Path, name: str) -> None:
    assert verify_chain(vector_chain(vectors_dir, name), DEFAULT, at=AT).architecture == "GH100"


def test_any_flipped_bit_of_any_certificate(nvidia_wheel: Path) -> None:
    """A24, A26."""
    chain = wheel_chain(nvidia_wheel)
    accepted: list[tuple[int, int]] = []
    for number, certificate in enumerate(chain):
        for position in range(number, len(certificate), 23):
            changed = bytearray(certificate)
            changed[position] ^= 1 << position % 8
            try:
                verify_chain((*chain[:number], bytes(changed), *chain[number + 1 :]), DEFAULT, at=AT)
            except (NotAuthentic, MalformedEvidence):
                continue
            accepted.append((number, position))
    assert accepted == []


@pytest.mark.parametrize("declared", ["GA100", "GH200"])
def test_architecture_that_was_not_declared(declared: str) -> None:
    """A16: an older generation is not the one promised, and neither is a newer."""
    chain, believed = forged(LEAF, BROM, PROVISIONER, ROOT)
    verified = verify_chain(chain, believed, at=AT)
    check_architecture(verified, "GH100")
    with pytest.raises(NotAuthentic) as caught:
        check_architecture(verified, declared)
    assert (caught.value.code, caught.value.expected, caught.value.got) == (Code.GPU_ARCH, declared, "GH100")


@pytest.mark.parametrize("above", [0, 1, 5])
def test_forged_chain_that_is_good(above: int) -> None:
    """From three certificates, the anchor issuing devices itself, to eight."""
    chain, believed = forged(LEAF, BROM, PROVISIONER, *[ROOT, *(Certificate(f"CA {n}") for n in range(4))][:above])
    verified = verify_chain(chain, believed, at=AT)
    assert (len(verified.certificates), verified.fwid) == (3 + above, None)


@pytest.mark.parametrize(
    ("orders", "code"),
    [
        ((LEAF, ROOT), Code.CHAIN_LENGTH),
        ((LEAF, *[Certificate(f"{n}") for n in range(8)]), Code.CHAIN_LENGTH),
        ((LEAF, PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((BROM, PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((LEAF, Certificate("GB100 A01 GSP BROM"), PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((LEAF, Certificate("GH100 A02 GSP BROM"), PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((LEAF, BROM, Certificate("insecure GB100 Provisioner ICA 1"), ROOT), Code.GPU_CHAIN),
        ((LEAF, BROM, Certificate("insecure GH100 Identity"), ROOT), Code.GPU_CHAIN),
        ((Certificate("GH100 A01 GSP FMC LF\n", ca=None, signs=False), BROM, PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((Certificate("x", ca=None, signs=False, common_names=()), BROM, PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((Certificate("GH100 A01 GSP FMC LF", signs=False), BROM, PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((Certificate("GH100 A01 GSP FMC LF", ca=None, signs=True), BROM, PROVISIONER, ROOT), Code.GPU_CHAIN),
        ((Certificate("GH100 A01 GSP FMC LF", ca=None, signs=None), BROM, PROVISIONER, ROOT), Code.GPU_CHAIN),
    ],
)
def test_compositions_with_good_signatures(orders: tuple[Certificate, ...], code: Code) -> None:
    """A24: every signature is good, the composition is not a device's."""
    chain, believed = forged(*orders)
    assert refusal(chain, believed) == code


def test_brom_of_another_device_is_named_beside_the_one_that_is_wanted() -> None:
    chain, believed = forged(LEAF, Certificate("GH100 A02 GSP BROM"), PROVISIONER, ROOT)
    with pytest.raises(NotAuthentic) as caught:
        verify_chain(chain, believed, at=AT)
    assert (caught.value.expected, caught.value.got) == ("GH100 A01 GSP BROM", "GH100 A02 GSP BROM")


@pytest.mark.parametrize("usages", [("digital_signature", "key_cert_sign"), ("crl_sign",)])
def test_leaf_signs_and_certifies_nothing(usages: tuple[str, ...]) -> None:
    leaf = Certificate(LEAF.name, ca=None, signs=None, extensions=((key_usage(*usages), True),))
    chain, believed = forged(leaf, BROM, PROVISIONER, ROOT)
    assert refusal(chain, believed) == Code.GPU_CHAIN


@pytest.mark.parametrize("which", [0, 1])
def test_keys_are_p384(which: int) -> None:
    orders = [LEAF, BROM, PROVISIONER, ROOT]
    key = ec.generate_private_key(ec.SECP256R1())
    orders[which] = Certificate(orders[which].name, key=key, ca=bool(which) or None, signs=bool(which))
    chain, believed = forged(*orders)
    assert refusal(chain, believed) == Code.GPU_CHAIN


def test_leaf_that_says_it_is_no_authority() -> None:
    chain, believed = forged(Certificate(LEAF.name, ca=False, signs=False), BROM, PROVISIONER, ROOT)
    assert verify_chain(chain, believed, at=AT).architecture == "GH100"


def test_name_without_the_number_of_the_chip() -> None:
    """What is printed of a chain tells a kind of device, not which one it is."""
    name = Certificate(BROM.name, serial_numbers=("41431D480FE5E87274",)).subject
    assert without_number(name) == "CN=GH100 A01 GSP BROM"


def test_proofs_are_told_apart_by_name() -> None:
    """One at another time has another end: what is the same of two is for the caller to say."""
    chain, believed = forged(LEAF, BROM, PROVISIONER, ROOT)
    first, second = (verify_chain(chain, believed, at=AT) for _ in range(2))
    assert first != second
    assert first.chain_digest == second.chain_digest


@pytest.mark.parametrize(
    ("architecture", "what"),
    [("XY123", "of an unknown architecture"), ("LS_10", "a switch, not what was asked for")],
)
def test_architecture_that_is_not_welcome(architecture: str, what: str) -> None:
    """A15."""
    vendor = EmulatedVendor.create(architecture=architecture)
    device = EmulatedH100.make(vendor, silicon=Silicon(architecture=architecture))
    with pytest.raises(NotAuthentic, match=f"the device is {what}") as caught:
        verify_chain(device.keys.chain, emulated_anchors(vendor), at=AT)
    assert (caught.value.code, caught.value.expected) == (Code.GPU_ARCH, "GB100 or GH100")


def test_malformed_certificate() -> None:
    assert refusal((b"", b"", b"")) == Code.CERT_MALFORMED


def test_before_and_after_validity(nvidia_wheel: Path) -> None:
    chain = wheel_chain(nvidia_wheel)
    assert refusal(chain, at=datetime(2022, 2, 28, tzinfo=UTC)) == Code.CHAIN_EXPIRED
    verify_chain(chain, DEFAULT, at=datetime(9999, 12, 31, tzinfo=UTC))


def test_verified_chain_is_made_by_verification_only(nvidia_wheel: Path) -> None:
    verified = verify_chain(wheel_chain(nvidia_wheel), DEFAULT, at=AT)
    with pytest.raises(TypeError):
        pickle.dumps(verified)
    with pytest.raises(TypeError):
        copy.copy(verified)
    assert "seal" not in repr(verified)
    with pytest.raises(TypeError):
        VerifiedGpuChain(
            seal=object(),
            key=verified.key,
            identity=bytes(32),
            kind="gpu",
            platform="nvidia",
            architecture="GH100",
            model="",
            fwid=None,
            anchor=verified.anchor,
            pdi=None,
            certificates=(),
            chain_digest=bytes(32),
            not_before=AT,
            not_after=AT,
        )


def test_cache_gives_the_same_answers() -> None:
    first, believed = emulated(2)
    cache = ChainCache(capacity=1)
    one = cache.verify_chain(first[0].keys.chain, believed, at=AT)
    assert cache.verify_chain(first[0].keys.chain, believed, at=AT) is one
    # Full: what somebody holds is found all the same.
    other = cache.verify_chain(first[1].keys.chain, believed, at=AT)
    assert cache.verify_chain(first[0].keys.chain, believed, at=AT) is one
    assert cache.verify_chain(first[1].keys.chain, believed, at=AT) is other
    # Nobody does: the older entry goes, and comes back equal.
    gone, identity = ref(one), one.identity
    del one
    assert gone() is None
    assert cache.verify_chain(first[0].keys.chain, believed, at=AT).identity == identity


def test_cache_keeps_what_was_used_last() -> None:
    """What nobody holds is kept too, as many chains as there is room for: the one used longest ago goes."""
    devices, believed = emulated(3)
    cache = ChainCache(capacity=2)

    def use(number: int) -> ref[VerifiedGpuChain]:
        return ref(cache.verify_chain(devices[number].keys.chain, believed, at=AT))

    used = [use(0), use(1)]
    assert use(0)() is used[0]()
    used.append(use(2))
    assert [chain() is not None for chain in used] == [True, False, True]


def test_cache_forgets_nothing_of_the_decision(nvidia_wheel: Path) -> None:
    """A cached chain is still judged by the anchors and the time of each question."""
    chain = wheel_chain(nvidia_wheel)
    cache = ChainCache()
    cache.verify_chain(chain, DEFAULT, at=AT)
    for believed, at, code in (
        (TrustAnchors(()), AT, Code.CHAIN_UNTRUSTED),
        (DEFAULT, datetime(2022, 2, 1, tzinfo=UTC), Code.CHAIN_EXPIRED),
    ):
        with pytest.raises(NotAuthentic) as caught:
            cache.verify_chain(chain, believed, at=at)
        assert caught.value.code == code


SECOND = timedelta(seconds=1)
BEGIN, END = AT - timedelta(days=1), AT + timedelta(days=1)


def test_known_chain_within_its_validity(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the second: what is remembered is used on the first and on the last, and refused before and after."""
    chain, believed = forged(replace(LEAF, not_before=BEGIN, not_after=END), BROM, PROVISIONER, ROOT)
    cache, counting = ChainCache(), Counting(monkeypatch)
    known = cache.verify_chain(chain, believed, at=AT)
    counting.taken()
    for at in (BEGIN, END):
        assert cache.verify_chain(chain, believed, at=at) is known
    assert counting.taken() == (0, 0)
    for at in (BEGIN - SECOND, END + SECOND):
        with pytest.raises(NotAuthentic) as caught:
            cache.verify_chain(chain, believed, at=at)
        assert caught.value.code == Code.CHAIN_EXPIRED


def test_known_tail_within_its_validity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose own two certificates last longer than its provisioner's is believed for as long as that one."""
    provisioner = replace(PROVISIONER, not_before=BEGIN, not_after=END)
    chain, believed = forged(LEAF, BROM, provisioner, ROOT)
    cache, counting = ChainCache(), Counting(monkeypatch)
    cache.verify_chain(chain, believed, at=AT)
    counting.taken()
    for at in (BEGIN, END):
        other = (*der([LEAF.issue(BROM), BROM.issue(provisioner)]), *chain[2:])
        assert cache.verify_chain(other, believed, at=at).not_after == END
        assert counting.taken() == (2, 2)
        for outside in (BEGIN - SECOND, END + SECOND):
            with pytest.raises(NotAuthentic) as caught:
                cache.verify_chain(other, believed, at=outside)
            assert caught.value.code == Code.CHAIN_EXPIRED
        counting.taken()


def test_cache_does_not_remember_failures() -> None:
    (device,), believed = emulated()
    cache = ChainCache()
    with pytest.raises(NotAuthentic):
        cache.verify_chain(device.keys.chain, DEFAULT, at=AT)
    assert cache.verify_chain(device.keys.chain, believed, at=AT + timedelta(days=1)).identity == device.identity


def test_cache_has_a_capacity() -> None:
    with pytest.raises(ValueError, match="capacity"):
        ChainCache(capacity=0)


class Counting:
    """Counts the certificates that are parsed and the links whose signature is checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parsed = self.checked = 0
        load, issued = certs.load_certificate, certs.check_issued

        def counted_load(data: bytes, where: str) -> x509.Certificate:
            self.parsed += 1
            return load(data, where)

        def counted_issued(subject: x509.Certificate, issuer: x509.Certificate, *, where: str, by: str) -> None:
            self.checked += 1
            issued(subject, issuer, where=where, by=by)

        monkeypatch.setattr(certs, "load_certificate", counted_load)
        monkeypatch.setattr(certs, "check_issued", counted_issued)

    def taken(self) -> tuple[int, int]:
        counts = self.parsed, self.checked
        self.parsed = self.checked = 0
        return counts


def test_cache_saves_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five certificates at first; two for the next device of the same provisioner; none for one seen before."""
    devices, believed = emulated(2)
    cache, counting = ChainCache(), Counting(monkeypatch)
    one = cache.verify_chain(devices[0].keys.chain, believed, at=AT)
    assert counting.taken() == (5, 4)
    other = cache.verify_chain(devices[1].keys.chain, believed, at=AT)
    assert counting.taken() == (2, 2)
    assert cache.verify_chain(devices[0].keys.chain, believed, at=AT) is one
    assert counting.taken() == (0, 0)
    whole = verify_chain(devices[1].keys.chain, believed, at=AT)
    for name in ("identity", "kind", "pdi", "fwid", "model", "chain_digest", "not_before", "not_after", "certificates"):
        assert getattr(other, name) == getattr(whole, name)


@pytest.mark.parametrize("spoilt", range(5))
@pytest.mark.parametrize("position", [40, -30])
def test_known_tail_admits_nothing_else(nvidia_wheel: Path, spoilt: int, position: int) -> None:
    """A24: each certificate changed, and the same refusal with the tail known as without."""
    chain = wheel_chain(nvidia_wheel)
    cache = ChainCache()
    cache.verify_chain(chain, DEFAULT, at=AT)
    changed = bytearray(chain[spoilt])
    changed[position] ^= 1
    forged_chain = (*chain[:spoilt], bytes(changed), *chain[spoilt + 1 :])
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        cache.verify_chain(forged_chain, DEFAULT, at=AT)
    assert caught.value.code == refusal(forged_chain)


def test_known_tail_under_other_compositions() -> None:
    """A24: a tail that verified below one device vouches for no chain that is put together otherwise."""
    orders = [LEAF, BROM, PROVISIONER, ROOT]
    chain, believed = forged(*orders)
    cache = ChainCache()
    cache.verify_chain(chain, believed, at=AT)
    stranger = Certificate(PROVISIONER.name)
    compositions = [
        ([LEAF.issue(stranger), *chain_of(BROM, PROVISIONER, ROOT)], Code.CHAIN_BROKEN),
        ([LEAF.issue(BROM), BROM.issue(stranger), *chain_of(PROVISIONER, ROOT)], Code.CHAIN_BROKEN),
        ([LEAF.issue(PROVISIONER), *chain_of(PROVISIONER, ROOT)], Code.GPU_CHAIN),
    ]
    for certificates, code in compositions:
        with pytest.raises(NotAuthentic) as caught:
            cache.verify_chain((*der(certificates)[:-2], *chain[2:]), believed, at=AT)
        assert caught.value.code == code


def test_known_tail_is_judged_by_time_and_anchors(nvidia_wheel: Path) -> None:
    chain, (device,) = wheel_chain(nvidia_wheel), emulated()[0]
    cache = ChainCache()
    cache.verify_chain(chain, DEFAULT, at=AT)
    other = (*device.keys.chain[:2], *chain[2:])
    for believed, at in ((DEFAULT, AT), (TrustAnchors(()), AT), (DEFAULT, datetime(2022, 2, 1, tzinfo=UTC))):
        with pytest.raises(NotAuthentic) as caught:
            cache.verify_chain(other, believed, at=at)
        assert caught.value.code == refusal(other, believed, at=at)


def test_device_is_welcome_by_its_kind(vectors_dir: Path) -> None:
    """A15: a switch that the cache knows is still no GPU."""
    chain = vector_chain(vectors_dir, "attsdk-testdata/switchCertChain.txt")
    cache = ChainCache()
    verified = cache.verify_chain(chain, DEFAULT, at=AT, accept=GPUS_AND_SWITCHES)
    assert (verified.kind, verified.architecture, verified.model) == ("switch", "LS_10", "LS_10 A01 FSP BROM")
    for verify in (cache.verify_chain, verify_chain):
        with pytest.raises(NotAuthentic, match="the device is a switch") as caught:
            verify(chain, DEFAULT, at=AT)
        assert caught.value.code == Code.GPU_ARCH
    with pytest.raises(NotAuthentic, match="the device is a gpu") as caught:
        verify_chain(
            vector_chain(vectors_dir, "attsdk-testdata/hopperCertChain.txt"),
            DEFAULT,
            at=AT,
            accept=frozenset({"switch"}),
        )
    assert caught.value.code == Code.GPU_ARCH


def test_pdi_is_in_the_certificate(nvidia_wheel: Path) -> None:
    (device,), believed = emulated()
    assert verify_chain(device.keys.chain, believed, at=AT).pdi == device.keys.pdi
    assert (verify_chain(wheel_chain(nvidia_wheel), DEFAULT, at=AT).pdi or b"").hex() == "431d480fe5e87274"
    chain, believed = forged(LEAF, BROM, PROVISIONER, ROOT)
    assert verify_chain(chain, believed, at=AT).pdi is None


@pytest.mark.parametrize("serials", [("41431D480FE5E872",), ("41431d480fe5e87274",), ("41431D480FE5E87274",) * 2])
def test_serial_number_that_holds_no_pdi(serials: tuple[str, ...]) -> None:
    chain, believed = forged(LEAF, Certificate(BROM.name, serial_numbers=serials), PROVISIONER, ROOT)
    assert verify_chain(chain, believed, at=AT).pdi is None


def test_wheel_chain_is_the_one_the_anchor_is_from(nvidia_wheel: Path) -> None:
    root = certs.load_certificate(wheel_chain(nvidia_wheel)[-1], "root")
    assert certs.spki_der(root) == DEFAULT.select("nvidia-device-root")[0].spki
