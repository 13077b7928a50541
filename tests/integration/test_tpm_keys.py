"""Attestation keys of every kind of host; few slots; a TPM that dies; registers that never rest. All on a real TPM."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tpm2_pytss as tss
from cryptography import x509

from fakes.boot_logs import Boot
from fakes.tpm_device import TpmBehindDevice
from fakes.tpm_proxy import TpmProxy
from weighbridge.attester.boot import IMA_PCR, RuntimeList
from weighbridge.attester.tpm.device import Tpm
from weighbridge.attester.tpm.emulator import PLATFORM, Manufactured, Swtpm, manufacture
from weighbridge.attester.tpm.options import AkChoice, TpmOptions
from weighbridge.proto.endorsement import AkCertificateEndorsement, EkEndorsement, VtpmReportEndorsement
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import (
    TPM_ALG_NULL,
    Curve,
    HashAlgorithm,
    Hierarchy,
    KeyType,
    ObjectAttributes,
    Scheme,
    digest,
)
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.tpm.templates import (
    ATTESTATION_KEY_ATTRIBUTES,
    ENDORSEMENT_KEYS,
    attestation_key_template,
    storage_root_key_template,
)
from weighbridge.proto.tpm.wire import sized, u16, u32
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tpm.ak import AttestationKey, VerifiedAk, activated
from weighbridge.verifier.tpm.certify import boot_policy_of, verify_telemetry_key
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.ek import verify_ek
from weighbridge.verifier.tpm.quote import VerifiedQuote, verify_quote

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
QUOTED, BOOT = PcrSelection.of(SHA256, range(16)), PcrSelection.of(SHA256, range(8))
OURS, UNIQUE = b"H" * 32, b"U" * 32
MEASURED = {SHA256: b"m" * 32, SHA384: b"m" * 48}
SRK_HANDLE, AZURE_HANDLE, ELSEWHERE = 0x81000001, 0x81000003, 0x81008888
READABLE = tss.TPMA_NV.OWNERWRITE | tss.TPMA_NV.OWNERREAD | tss.TPMA_NV.NO_DA


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manufactured:
    return manufacture(tmp_path_factory.mktemp("tpm") / "made")


@pytest.fixture
def emulator(made: Manufactured) -> Iterator[Swtpm]:
    with Swtpm(made) as running:
        yield running


def fault(code: Code, operation: Callable[[], object]) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        operation()
    assert caught.value.code is code
    assert caught.value.hint
    return caught.value


# what a verifier does


def enrolled(tpm: Tpm, made: Manufactured) -> VerifiedAk:
    """The whole way: credential, quote, telemetry key, signature."""
    root = x509.load_der_x509_certificate(made.root)
    anchors = TrustAnchors((Anchor.from_certificate("tpm-ek-root", root, platform=PLATFORM, source="a test"),))
    shown = tpm.endorsement_key()
    issuers = (*shown.intermediates, made.intermediate)
    ek = verify_ek(public.parse(shown.public), shown.certificate, issuers, anchors, at=datetime.now(UTC))
    parent = tpm.attestation_parent()
    ak = AttestationKey(public.parse(tpm.attestation_key()), None if parent is None else public.parse(parent))
    secret = os.urandom(32)
    credential = make_credential(ek, ak.public.name, secret)
    answer = tpm.activate_credential(credential.id_object, credential.encrypted_secret)
    believed = activated(ek, ak, secret=secret, answer=answer)
    telemetry_key = tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
    attest, signature = tpm.certify_telemetry_key(OURS)
    verify_telemetry_key(
        attest=attest,
        signature=signature,
        public=public.parse(telemetry_key),
        ak=believed,
        qualifying_data=OURS,
        boot_policy=boot_policy_of(quoted(tpm, believed), BOOT),
    )
    assert len(tpm.sign(b"header")) == 64
    return believed


def quoted(tpm: Tpm, ak: VerifiedAk) -> VerifiedQuote:
    return verify_quote(tpm.quote(QUOTED, OURS), ak, qualifying_data=OURS, selection=QUOTED)


# what others do to a TPM


def template(kind: str) -> bytes:
    """An attestation key's template, of a kind that clouds and owners make."""
    head = u16(HashAlgorithm.SHA256) + u32(ATTESTATION_KEY_ATTRIBUTES) + sized(b"")
    if kind == "RSA-2048":
        scheme = u16(TPM_ALG_NULL) + u16(Scheme.RSASSA) + u16(SHA256) + u16(2048) + u32(0)
        return u16(KeyType.RSA) + head + scheme + sized(bytes(256))
    scheme = u16(TPM_ALG_NULL) + u16(Scheme.ECDSA) + u16(SHA384) + u16(Curve.NIST_P384) + u16(TPM_ALG_NULL)
    return u16(KeyType.ECC) + head + scheme + sized(b"") + sized(b"")


def persist(emulator: Swtpm, handle: int, made_by: bytes, hierarchy: Hierarchy = Hierarchy.ENDORSEMENT) -> None:
    with tss.ESAPI(emulator.tcti) as esapi:
        area, _ = tss.TPM2B_PUBLIC.unmarshal(sized(made_by))
        owner = {Hierarchy.OWNER: tss.ESYS_TR.OWNER, Hierarchy.ENDORSEMENT: tss.ESYS_TR.ENDORSEMENT}[hierarchy]
        key, *_ = esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), area, owner)
        esapi.evict_control(tss.ESYS_TR.OWNER, key, handle)
        esapi.flush_context(key)


def store(emulator: Swtpm, index: int, data: bytes, attributes: int = READABLE | tss.TPMA_NV.AUTHREAD) -> None:
    with tss.ESAPI(emulator.tcti) as esapi:
        area = tss.TPMS_NV_PUBLIC(nvIndex=index, nameAlg=tss.TPM2_ALG.SHA256, attributes=attributes, dataSize=len(data))
        resource = esapi.nv_define_space(b"", tss.TPM2B_NV_PUBLIC(area))
        for offset in range(0, len(data), 512):
            esapi.nv_write(resource, data[offset : offset + 512], offset, tss.ESYS_TR.OWNER)


# below the storage root key


@pytest.fixture
def below(tmp_path: Path) -> TpmOptions:
    return TpmOptions(ak=AkChoice("srk"), key_file=tmp_path / "attestation-key.cbor")


def test_below_the_storage_root_key(emulator: Swtpm, made: Manufactured, below: TpmOptions) -> None:
    """The same key after a restart, also when the owner has made the storage root key persistent meanwhile."""
    seen: set[bytes] = set()
    for kept in (False, False, True):
        if kept:
            persist(emulator, SRK_HANDLE, storage_root_key_template(), Hierarchy.OWNER)
        with Tpm.open(emulator.tcti, below) as tpm:
            ak = enrolled(tpm, made)
            assert (ak.provenance, tpm.attestation_parent() is None) == ("ek-credential", False)
            assert isinstance(tpm.endorsement(), EkEndorsement)
            seen.add(tpm.attestation_key())
    assert len(seen) == 1
    assert below.key_file is not None
    assert below.key_file.stat().st_mode & 0o777 == 0o600


def test_below_a_storage_root_key_of_another_kind(emulator: Swtpm, made: Manufactured, below: TpmOptions) -> None:
    attributes = (ATTESTATION_KEY_ATTRIBUTES & ~ObjectAttributes.SIGN) | ObjectAttributes.DECRYPT
    storage = u16(KeyType.RSA) + u16(SHA256) + u32(attributes) + sized(b"")
    storage += u16(6) + u16(128) + u16(0x43) + u16(TPM_ALG_NULL) + u16(2048) + u32(0) + sized(bytes(256))
    persist(emulator, SRK_HANDLE, storage, Hierarchy.OWNER)
    with Tpm.open(emulator.tcti, below) as tpm:
        enrolled(tpm, made)
        parent = tpm.attestation_parent()
        assert parent is not None
        assert public.parse(parent).symmetric is not None
        assert len(parent) > 256


def test_something_else_where_the_storage_root_key_should_be(
    emulator: Swtpm, made: Manufactured, below: TpmOptions
) -> None:
    persist(emulator, SRK_HANDLE, template("RSA-2048"))
    with Tpm.open(emulator.tcti, below) as tpm:
        enrolled(tpm, made)


def test_a_cleared_tpm_has_lost_it(emulator: Swtpm, below: TpmOptions) -> None:
    """A65: who clears the TPM to begin its counts anew has no key to quote them with."""
    with Tpm.open(emulator.tcti, below) as tpm:
        before = tpm.attestation_key()
    with tss.ESAPI(emulator.tcti) as esapi:
        esapi.clear(tss.ESYS_TR.LOCKOUT)
    with Tpm.open(emulator.tcti, below) as tpm:
        assert "cleared" in fault(Code.TPM_FAILED, tpm.attestation_key).message
        assert below.key_file is not None
        below.key_file.unlink()
        assert tpm.attestation_key() != before


def test_a_key_file_that_is_none(emulator: Swtpm, below: TpmOptions) -> None:
    assert below.key_file is not None
    with Tpm.open(emulator.tcti, below) as tpm:
        tpm.attestation_key()
        whole = below.key_file.read_bytes()
    for data in (b"", whole[:-1], whole.replace(b"-key/v1", b"-key/v2"), bytes(20_000)):
        below.key_file.write_bytes(data)
        with Tpm.open(emulator.tcti, below) as tpm:
            fault(Code.STATE_CORRUPT, tpm.attestation_key)
    # Its private part is nobody else's: what was changed in it is refused by the TPM.
    below.key_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with Tpm.open(emulator.tcti, below) as tpm:
        assert "not made for this TPM" in fault(Code.TPM_FAILED, tpm.attestation_key).message


def test_it_needs_a_file() -> None:
    with pytest.raises(ValueError, match="needs a file"):
        TpmOptions(ak=AkChoice("srk"))


# persistent keys


@pytest.mark.parametrize("kind", ["RSA-2048", "P-384"])
def test_a_persistent_key(emulator: Swtpm, made: Manufactured, kind: str) -> None:
    """The digest of a quote is by the hash of the key's scheme: SHA-384 for P-384."""
    persist(emulator, ELSEWHERE, template(kind))
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("handle", ELSEWHERE))) as tpm:
        ak = enrolled(tpm, made)
        assert ak.public.signing_algorithm().hash is (SHA384 if kind == "P-384" else SHA256)
        assert tpm.attestation_parent() is None


def test_a_persistent_key_below_the_storage_root_key(emulator: Swtpm, made: Manufactured, below: TpmOptions) -> None:
    """The TPM says of it whose child it is."""
    persist(emulator, SRK_HANDLE, storage_root_key_template(), Hierarchy.OWNER)
    with Tpm.open(emulator.tcti, below) as tpm:
        tpm.attestation_key()
        tpm._esapi.call("persist", lambda: tpm._esapi._esapi.evict_control(tss.ESYS_TR.OWNER, loaded(tpm), ELSEWHERE))
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("handle", ELSEWHERE))) as tpm:
        assert tpm.attestation_parent() is not None
        enrolled(tpm, made)


def loaded(tpm: Tpm) -> tss.ESYS_TR:
    assert tpm._ak is not None
    return tpm._ak.handle


def test_persistent_keys_that_attest_nothing(emulator: Swtpm) -> None:
    persist(emulator, ELSEWHERE, storage_root_key_template(), Hierarchy.OWNER)
    free = attestation_key_template()
    unrestricted = free[:4] + u32(ATTESTATION_KEY_ATTRIBUTES & ~ObjectAttributes.RESTRICTED) + free[8:]
    persist(emulator, ELSEWHERE + 1, unrestricted)
    for handle, reason in ((ELSEWHERE, "no restricted"), (ELSEWHERE + 1, "restricted"), (ELSEWHERE + 2, "no key")):
        with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("handle", handle))) as tpm:
            for _ in range(5):
                assert reason in fault(Code.TPM_FAILED, tpm.attestation_key).message


def test_persistent_keys_of_kinds_that_nobody_believes(emulator: Swtpm, made: Manufactured, below: TpmOptions) -> None:
    """P-521 is outside the table: as an attestation key it is refused, as a storage key another is made."""
    curve = u16(5)
    storage = storage_root_key_template()
    place = storage.index(u16(TPM_ALG_NULL) + u16(Curve.NIST_P256)) + 2
    persist(emulator, SRK_HANDLE, storage[:place] + curve + storage[place + 2 :], Hierarchy.OWNER)
    free = attestation_key_template()
    place = free.index(u16(Curve.NIST_P256) + u16(TPM_ALG_NULL))
    persist(emulator, ELSEWHERE, free[:place] + curve + free[place + 2 :])
    persist(emulator, ELSEWHERE + 1, template("P-384"))
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("handle", ELSEWHERE))) as tpm:
        assert "curve" in fault(Code.TPM_FAILED, tpm.attestation_key).message
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("handle", ELSEWHERE + 1))) as tpm:
        assert tpm.attestation_parent() is None
    with Tpm.open(emulator.tcti, below) as tpm:
        enrolled(tpm, made)


# clouds


def test_azures_report(emulator: Swtpm) -> None:
    """Read in pieces, by the owner; what the processor's maker says comes from elsewhere."""
    report = bytes(range(256)) * 7 + b"end"
    persist(emulator, AZURE_HANDLE, template("RSA-2048"))
    store(emulator, 0x01400001, report, READABLE)
    choice = AkChoice("handle", AZURE_HANDLE)
    with Tpm.open(emulator.tcti, TpmOptions(ak=choice)) as tpm:
        assert "THIM" in fault(Code.TPM_FAILED, tpm.endorsement).hint
    with Tpm.open(emulator.tcti, TpmOptions(ak=choice, certificates=(b"vcek", b"ask", b"ark"))) as tpm:
        expected = VtpmReportEndorsement(report=report, quote=None, certificates=(b"vcek", b"ask", b"ark"))
        assert tpm.endorsement() == expected
    with Tpm.open(emulator.tcti, TpmOptions(ak=choice, td_quote=b"quote")) as tpm:
        assert tpm.endorsement() == VtpmReportEndorsement(report=report, quote=b"quote", certificates=())


def test_that_handle_elsewhere(emulator: Swtpm, made: Manufactured) -> None:
    """Without a report it is a persistent key as any other."""
    persist(emulator, AZURE_HANDLE, template("RSA-2048"))
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("handle", AZURE_HANDLE))) as tpm:
        assert isinstance(tpm.endorsement(), EkEndorsement)
        enrolled(tpm, made)


def test_an_index_that_is_too_large(emulator: Swtpm, monkeypatch: pytest.MonkeyPatch) -> None:
    persist(emulator, AZURE_HANDLE, template("RSA-2048"))
    store(emulator, 0x01400001, bytes(1_000))
    monkeypatch.setattr("weighbridge.attester.tpm.esapi._NV_MAX", 999)
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("handle", AZURE_HANDLE), td_quote=b"q")) as tpm:
        assert "too large" in fault(Code.TPM_FAILED, tpm.endorsement).message


@pytest.mark.parametrize("kind", ["P-384", "RSA-2048"])
def test_googles_key(emulator: Swtpm, made: Manufactured, kind: str) -> None:
    """Template and certificate stand side by side; the elliptic curve is preferred where both are there."""
    certificate = made.intermediate
    if kind == "P-384":
        store(emulator, 0x01C10003, template(kind))
        store(emulator, 0x01C10002, certificate + b"\xff" * 40)
    store(emulator, 0x01C10001, template("RSA-2048"))
    store(emulator, 0x01C10000, certificate)
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("gce"), certificates=(made.root,))) as tpm:
        assert tpm.endorsement() == AkCertificateEndorsement(certificate=certificate, intermediates=(made.root,))
        assert (len(tpm.attestation_key()) > 256) is (kind == "RSA-2048")
        enrolled(tpm, made)


def test_googles_key_elsewhere(emulator: Swtpm) -> None:
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("gce"))) as tpm:
        for operation in (tpm.attestation_key, tpm.endorsement):
            assert "Compute Engine" in fault(Code.TPM_FAILED, operation).hint


@pytest.mark.parametrize("data", [b"template", storage_root_key_template()], ids=["junk", "storage"])
def test_templates_that_are_none(emulator: Swtpm, made: Manufactured, data: bytes) -> None:
    store(emulator, 0x01C10003, data)
    store(emulator, 0x01C10002, made.intermediate)
    with Tpm.open(emulator.tcti, TpmOptions(ak=AkChoice("gce"))) as tpm:
        for _ in range(5):
            fault(Code.TPM_FAILED, tpm.attestation_key)
        assert tpm.active_banks()


# endorsement keys


def test_an_endorsement_key_that_is_kept_elsewhere(emulator: Swtpm, made: Manufactured) -> None:
    """The handle says which: here the RSA key, though the TPM has a certificate for the other too."""
    persist(emulator, ELSEWHERE, next(each for each in ENDORSEMENT_KEYS if each.name == "L-1").encode())
    with Tpm.open(emulator.tcti, TpmOptions(ek_handle=ELSEWHERE)) as tpm:
        assert len(tpm.endorsement_key().public) > 256
        enrolled(tpm, made)


def test_no_endorsement_key_at_that_handle(emulator: Swtpm) -> None:
    persist(emulator, ELSEWHERE, template("RSA-2048"))
    for handle in (ELSEWHERE, ELSEWHERE + 1):
        with Tpm.open(emulator.tcti, TpmOptions(ek_handle=handle)) as tpm:
            for _ in range(4):
                fault(Code.TPM_FAILED, tpm.endorsement_key)


def test_intermediates_that_the_tpm_does_not_store(emulator: Swtpm, made: Manufactured) -> None:
    with Tpm.open(emulator.tcti, TpmOptions(certificates=(made.intermediate,))) as tpm:
        shown = tpm.endorsement()
        assert isinstance(shown, EkEndorsement)
        assert shown.intermediates == (made.intermediate,)
        assert tpm.endorsement_key().intermediates == ()


# slots


def occupy(tpm: Tpm, count: int) -> None:
    """Somebody else's objects, which are not ours to flush."""

    def create() -> None:
        for number in range(count):
            tpm._esapi.create_primary(Hierarchy.OWNER, storage_root_key_template()[:-1] + bytes([number]))

    tpm._esapi.call("occupy", create)


def in_use(tpm: Tpm) -> tuple[int, int, int]:
    """Transient objects, loaded sessions, saved sessions."""

    def count() -> tuple[int, int, int]:
        objects, sessions, saved = (len(tpm._esapi.handles(first)) for first in (0x80000000, 0x02000000, 0x03000000))
        return objects, sessions, saved

    return tpm._esapi.call("count", count)


@pytest.mark.parametrize("kind", ["endorsement", "srk", "handle"])
def test_one_slot_is_somebody_elses(emulator: Swtpm, made: Manufactured, below: TpmOptions, kind: str) -> None:
    """Three slots, as most TPMs have; two are left, of which a persistent key takes one too while it is used."""
    persist(emulator, ELSEWHERE, template("P-384"))
    options = {"srk": below, "handle": TpmOptions(ak=AkChoice("handle", ELSEWHERE))}.get(kind, TpmOptions())
    with Tpm.open(emulator.tcti, options) as tpm:
        occupy(tpm, 1)
        ak = enrolled(tpm, made)
        for _ in range(3):
            quoted(tpm, ak)
            assert len(tpm.sign(b"header")) == 64
            tpm.certify_telemetry_key(OURS)
        assert in_use(tpm)[0] <= 3


def test_two_slots_are_somebody_elses(emulator: Swtpm, made: Manufactured) -> None:
    """A session goes on in the last one; what needs two keys at once says who is in the way, and harms nothing."""
    with Tpm.open(emulator.tcti) as tpm:
        ak = enrolled(tpm, made)
        key = tpm._telemetry
        tpm._esapi.call("release", tpm._release)
        occupy(tpm, 2)
        for _ in range(3):
            quoted(tpm, ak)
            assert len(tpm.sign(b"header")) == 64
        for operation in (lambda: tpm.certify_telemetry_key(OURS), lambda: tpm.activate_credential(b"\0" * 70, b"\0")):
            assert "/dev/tpmrm0" in fault(Code.TPM_BUSY, operation).hint
        assert len(tpm.sign(b"header")) == 64
        assert key is not None
        assert tpm._telemetry is not None
        assert tpm._telemetry.public == key.public
        tpm.create_telemetry_key(unique=b"V" * 32, boot=BOOT)
        assert in_use(tpm) == (3, 0, 0)


def test_no_slot_is_left(emulator: Swtpm) -> None:
    with Tpm.open(emulator.tcti) as tpm:
        occupy(tpm, 3)
        for operation in (tpm.attestation_key, lambda: tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)):
            fault(Code.TPM_BUSY, operation)
        assert tpm.read_pcrs(QUOTED)
        assert in_use(tpm) == (3, 0, 0)


def test_nothing_is_left_behind(emulator: Swtpm, made: Manufactured, below: TpmOptions) -> None:
    """Hundreds of operations, failed ones among them: two keys are loaded and no session."""
    with Tpm.open(emulator.tcti, below) as tpm:
        enrolled(tpm, made)
        for number in range(200):
            tpm.sign(number.to_bytes(2))
            if number % 10 == 0:
                enrolled(tpm, made)
                fault(Code.TPM_FAILED, lambda: tpm.activate_credential(b"\0" * 70, b"\0" * 100))
                fault(Code.TPM_FAILED, lambda: tpm.quote(PcrSelection.of(HashAlgorithm.SHA512, [0]), OURS))
                tpm.extend(0, MEASURED)
                fault(Code.TPM_FAILED, lambda: tpm.sign(b"header"))
                tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
        assert in_use(tpm) == (2, 0, 0)
        tpm._esapi.call("release", tpm._release)
        assert in_use(tpm) == (0, 0, 0)


# a TPM that dies


@pytest.mark.parametrize("seen", [True, False], ids=["seen dead", "back before it was missed"])
def test_a_tpm_that_dies_is_found_again(emulator: Swtpm, made: Manufactured, seen: bool) -> None:
    with Tpm.open(emulator.tcti) as tpm:
        ak = enrolled(tpm, made)
        emulator.kill()
        if seen:
            for operation in (tpm.read_clock, lambda: tpm.sign(b"header"), lambda: tpm.quote(QUOTED, OURS)):
                fault(Code.TPM_ABSENT, operation)
        emulator.start()
        if not seen:
            # Of what was asked it is not known whether it was done.
            fault(Code.TPM_ABSENT, lambda: tpm.extend(15, MEASURED))
        # The session is over: its key went with the NULL hierarchy's seed. The attestation key is the same.
        fault(Code.TPM_RESET, lambda: tpm.sign(b"header"))
        fault(Code.TPM_RESET, lambda: tpm.certify_telemetry_key(OURS))
        quoted(tpm, ak)
        assert enrolled(tpm, made).name == ak.name


def test_another_tpm_in_its_place(emulator: Swtpm, tmp_path: Path) -> None:
    other = manufacture(tmp_path / "other")
    with Tpm.open(emulator.tcti) as tpm:
        tpm.attestation_key()
        emulator.restore(other.state)
        fault(Code.TPM_ABSENT, tpm.read_clock)
        assert "another than before" in fault(Code.TPM_RESET, lambda: tpm.quote(QUOTED, OURS)).message


def test_the_kernels_device(emulator: Swtpm, made: Manufactured) -> None:
    """The same over a character device, which is how real hosts have it."""
    with TpmBehindDevice(Path(emulator.tcti.removeprefix("swtpm:path="))) as device:
        with Tpm.open(device.tcti) as tpm:
            enrolled(tpm, made)
            with pytest.raises(RuntimeError, match="only an emulator"):
                tpm.startup()
            assert in_use(tpm) == (2, 0, 0)
        with Tpm.open(device.tcti) as tpm:
            assert in_use(tpm) == (0, 0, 0)


# registers that never rest


class Kernel:
    """IMA: between any two of our commands a file is measured; the list first, then the register."""

    def __init__(self, path: Path) -> None:
        self.boot, self.path, self.count = Boot((SHA256,)), path, 0
        path.touch()

    def measure(self) -> bytes:
        """The command that extends PCR 10."""
        self.count += 1
        self.boot.measure(f"/usr/bin/{self.count}", self.count.to_bytes(4))
        entry = self.boot.runtime[-1]
        with self.path.open("ab") as file:
            file.write(entry)
        hashed = digest(SHA256, entry[4 + 20 + 4 + 6 + 4 :])
        authorisation = u32(0x40000009) + sized(b"") + b"\0" + sized(b"")
        body = u32(IMA_PCR) + u32(len(authorisation)) + authorisation + u32(1) + u16(SHA256) + hashed
        return u16(0x8002) + u32(10 + len(body)) + u32(0x182) + body


def test_a_kernel_that_measures_without_pause(emulator: Swtpm, made: Manufactured, tmp_path: Path) -> None:
    """No read ever sees the value that is signed: the list tells it, and what is sent leads exactly there."""
    kernel = Kernel(tmp_path / "list")
    listed = RuntimeList(kernel.path)
    with ExitStack() as stack:
        folder = Path(emulator.tcti.removeprefix("swtpm:path=")).parent
        proxy = stack.enter_context(TpmProxy(folder / "p", folder / "s"))
        tpm = stack.enter_context(closing(Tpm.open(proxy.tcti)))
        ak = enrolled(tpm, made)
        proxy.restless = kernel.measure
        tpm.follow(IMA_PCR, listed)
        offset = 0
        for _ in range(10):
            value = quoted(tpm, ak).pcrs[IMA_PCR]
            data = listed.since(offset, value, SHA256)
            offset += len(data)
            assert data
            assert offset < kernel.path.stat().st_size
        assert kernel.count > 30


def test_a_thread_that_extends_without_pause(emulator: Swtpm, made: Manufactured) -> None:
    """Without a list too there are quotes, since a register rests now and then; a signature too takes some tries."""
    with ExitStack() as stack:
        folder = Path(emulator.tcti.removeprefix("swtpm:path=")).parent
        proxy = stack.enter_context(TpmProxy(folder / "p", folder / "s"))
        tpm = stack.enter_context(closing(Tpm.open(proxy.tcti)))
        ak = enrolled(tpm, made)
        done = threading.Event()
        thread = threading.Thread(target=extend_until, args=(proxy, done))
        thread.start()
        stack.callback(thread.join)
        stack.callback(done.set)
        values = {quoted(tpm, ak).pcrs[IMA_PCR] for _ in range(50)}
        assert len(values) > 1
        for _ in range(20):
            assert len(tpm.sign(b"header")) == 64
        assert tpm.read_pcrs(QUOTED)[IMA_PCR] not in values


def extend_until(proxy: TpmProxy, done: threading.Event) -> None:
    hashed = b"x" * 32
    authorisation = u32(0x40000009) + sized(b"") + b"\0" + sized(b"")
    body = u32(IMA_PCR) + u32(len(authorisation)) + authorisation + u32(1) + u16(SHA256) + hashed
    command = u16(0x8002) + u32(10 + len(body)) + u32(0x182) + body
    while not done.is_set():
        proxy.give(command)
        time.sleep(0.02)
