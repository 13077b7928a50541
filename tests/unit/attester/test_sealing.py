"""Sealing one window: the order of its steps, and what each binds to what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from fakes.soft_tpm import SoftTpm
from support.world import LOG_PCR, SoftLog, manifest
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.sealing import Carried, Observed, SealedWindow, Sealer
from weighbridge.proto import binding, cose, limits, measurement_log
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, shorten
from weighbridge.proto.manifest import parse_manifests
from weighbridge.proto.measurement_log import AttesterStart
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.spot import SpotAnswer
from weighbridge.proto.terms import SignedTerms, Terms
from weighbridge.proto.tpm import attest as tpm_attest
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import Evidence, Header, Interval, audience_of
from weighbridge.proto.workload import WorkSummary

BOOT = (0, 7)
VERIFIER = sha256(b"verifier")
SPOT = SpotAnswer(bytes(16), sha256(b"mac"))


class NotingTpm(SoftTpm):
    """Notes when it is asked."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self._events = events
        self.on_quote: Callable[[], None] = lambda: None

    def quote(self, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
        self._events.append("quote")
        quote = super().quote(selection, qualifying_data)
        self.on_quote()
        return quote

    def sign(self, data: bytes) -> bytes:
        self._events.append("sign")
        return super().sign(data)


class NotingGpus:
    """Notes when they are asked, and for what."""

    def __init__(self, events: list[str]) -> None:
        self._gpus = EmulatedGpus.create(2)
        self._events = events
        self.nonces: list[bytes] = []

    def identities(self) -> tuple[bytes, ...]:
        return self._gpus.identities()

    def attest(self, nonce: bytes) -> Sequence[GpuEvidence]:
        self._events.append("gpu")
        self.nonces.append(nonce)
        return self._gpus.attest(nonce)

    def cc_state(self) -> CcState | None:
        return self._gpus.cc_state()

    def close(self) -> None: ...


class Bench:
    """A host with a session, whose terms demand reports of two GPUs in every third window, or none."""

    def __init__(
        self, *, gpus: bool = True, bank: HashAlgorithm = HashAlgorithm.SHA256, before: bytes | None = None
    ) -> None:
        """``before`` was extended into the log's register before the log began, if anything was."""
        self.events: list[str] = []
        self.tpm = NotingTpm(self.events)
        self.gpus = NotingGpus(self.events)
        if before is not None:
            self.extend(before)
        self.log = SoftLog(self.tpm)
        self.log.append(AttesterStart("0.1.0", bytes(16)))
        boot = PcrSelection.of(HashAlgorithm.SHA256, BOOT)
        public = self.tpm.create_telemetry_key(unique=bytes(32), boot=boot)
        self.key = tpm_public.parse(public)
        usual = Terms(
            session=bytes(range(16)),
            tenant="tenant-a",
            audience="relying-party",
            verifier=VERIFIER,
            ak=sha256(b"ak"),
            telemetry_key=sha256(self.key.spki()),
            cnf=sha256(b"cnf"),
            peer=sha256(b"peer"),
            kem=None,
            model=manifest().digest,
            evidence=("gpu", "telemetry", "tpm", "workload"),
            gpus=self.gpus.identities(),
            bank=bank.value,
            pcrs=(*BOOT, LOG_PCR),
            boot_pcrs=BOOT,
            log_pcr=LOG_PCR,
            period_ns=10**9,
            gpu_every=3,
            spot_every=1,
            lateness_ns=0,
            prev=sha256(b"prev"),
            issued_ns=0,
        )
        terms = usual if gpus else replace(usual, evidence=("telemetry", "tpm", "workload"), gpus=())
        self.terms = SignedTerms(b"raw", terms, binding.terms_digest(terms.encode()))
        self.sealer = Sealer(
            self.terms,
            tpm=self.tpm,
            gpus=self.gpus,
            log=self.log,
            carried=Carried(records=1, manifests=frozenset(), reset_count=self.tpm.reset_count),
            declared=(),
        )

    def extend(self, what: bytes) -> None:
        """Somebody who is not the log extends its register."""
        self.tpm.extend(LOG_PCR, {bank: digest(bank, what) for bank in self.tpm.banks})

    def observed(self, seq: int = 0, telemetry: bytes = b"telemetry") -> Observed:
        return Observed(
            seq=seq,
            prev=sha256(b"prev"),
            challenge=sha256(b"challenge"),
            interval=Interval(tpm_start_ms=1, tpm_end_ms=2, wall_start_ns=3, wall_end_ns=4),
            telemetry=telemetry,
            work=WorkSummary.empty(),
            spot=SPOT,
        )

    def seal(self, seq: int = 0, telemetry: bytes = b"telemetry") -> tuple[SealedWindow, Evidence, Header]:
        window = self.sealer.seal(self.observed(seq, telemetry), begin=lambda _: self.events.append("disk"))
        evidence = Evidence.parse(window.evidence)
        return window, evidence, Header.parse(evidence.signed_header().payload)


def test_nothing_is_signed_before_the_header_is_on_disk() -> None:
    bench = Bench()
    bench.seal()
    assert bench.events == ["disk", "gpu", "quote", "sign"]


def test_a_disk_that_fails_stops_everything() -> None:
    bench = Bench()

    def full(_: bytes) -> None:
        raise EnvironmentFault(Code.DISK_FULL, "no space", where="header")

    with pytest.raises(EnvironmentFault) as caught:
        bench.sealer.seal(bench.observed(), begin=full)
    assert caught.value.code is Code.DISK_FULL
    assert bench.events == []


def test_every_part_is_bound_to_the_header() -> None:
    bench = Bench()
    window, evidence, header = bench.seal()
    raw = evidence.signed_header().payload
    assert window.digest == binding.window_digest(raw)
    assert bench.gpus.nonces == [binding.gpu_nonce(window.digest)]
    assert evidence.gpus is not None
    reports = gpu_evidence.parse(evidence.gpus)
    expected = binding.qualifying_data(window.digest, gpu_evidence.gpus_binding(reports), None)
    attest = tpm_attest.parse(QuoteEvidence.parse(evidence.quote).attest)
    assert attest.extra_data == window.qualifying_data == expected
    assert window.next_prev == binding.link(window.digest, expected)
    assert header.telemetry == sha256(evidence.telemetry)


def test_the_header_is_the_terms_and_the_observation() -> None:
    bench = Bench()
    _, evidence, header = bench.seal()
    terms, observed = bench.terms.terms, bench.observed()
    assert header == Header(
        tenant=terms.tenant,
        session=terms.session,
        audience=audience_of(VERIFIER),
        terms=bench.terms.digest,
        seq=0,
        prev=observed.prev,
        challenge=observed.challenge,
        interval=observed.interval,
        telemetry=sha256(b"telemetry"),
        work=observed.work,
        log_length=1,
        log_head=measurement_log.head(bench.log.records()),
        model=terms.model,
        telemetry_key=terms.telemetry_key,
        cnf=terms.cnf,
        peer=terms.peer,
        kem=None,
        spot=SPOT,
        cc_state=bench.gpus.cc_state(),
    )
    key = cose.load_p256(bench.key.spki(), what="telemetry key")
    cose.verify(evidence.signed_header(), key)


def test_gpu_reports_exactly_where_the_terms_demand_them() -> None:
    """A79: what is not due is null, not missing, and its absence is bound."""
    bench = Bench()
    for seq in range(7):
        window, evidence, _ = bench.seal(seq)
        assert (evidence.gpus is not None) == (seq % 3 == 0)
        if evidence.gpus is None:
            expected = binding.qualifying_data(window.digest, gpu_evidence.gpus_binding(None), None)
            assert window.qualifying_data == expected


def test_no_gpu_is_asked_when_the_terms_want_none() -> None:
    bench = Bench(gpus=False)
    _, evidence, _ = bench.seal()
    assert evidence.gpus is None
    assert "gpu" not in bench.events


def test_records_and_manifests_go_once() -> None:
    bench = Bench()
    model = manifest()
    bench.log.load(model)
    _, first, header = bench.seal(0)
    assert len(measurement_log.parse_records(first.log)) == 1
    assert [item.digest for item in parse_manifests(first.manifests)] == [model.digest]
    assert header.log_length == 2
    bench.log.load(model)
    _, second, header = bench.seal(1)
    assert len(measurement_log.parse_records(second.log)) == 1
    assert parse_manifests(second.manifests) == ()
    assert (header.log_length, header.log_head) == (3, measurement_log.head(bench.log.records()))


def test_a_load_during_sealing_makes_a_new_header_and_never_two_signatures() -> None:
    """The quoted register must be that of the header's log; the telemetry key signs one header per number."""
    bench = Bench()
    left = [2]

    def load() -> None:
        if left[0]:
            left[0] -= 1
            bench.log.load(manifest(f"model-{left[0]}"))

    bench.tpm.on_quote = load
    _, evidence, header = bench.seal()
    assert bench.events == ["disk", "gpu", "quote"] * 3 + ["sign"]
    assert header.log_length == 3
    quote = QuoteEvidence.parse(evidence.quote)
    register = measurement_log.replay(bytes(32), bench.log.records(), HashAlgorithm.SHA256, pcr=LOG_PCR)
    assert quote.pcr_values[-1] == register


def test_loads_without_end_are_said() -> None:
    bench = Bench()
    bench.tpm.on_quote = lambda: bench.log.append(AttesterStart("0.1.0", bytes(16)))
    with pytest.raises(EnvironmentFault) as caught:
        bench.seal()
    assert caught.value.code is Code.TPM_FAILED
    assert "sign" not in bench.events


@pytest.mark.parametrize("bank", [HashAlgorithm.SHA256, HashAlgorithm.SHA384])
def test_a_register_that_somebody_else_extended_is_not_signed_for(bank: HashAlgorithm) -> None:
    """A verifier would have to take it for a hidden load, and hold it against TPM and GPUs for good."""
    bench = Bench(bank=bank)
    bench.log.load(manifest())
    bench.seal(0)
    bench.extend(b"cryptsetup:data")
    bench.events.clear()
    with pytest.raises(EnvironmentFault) as caught:
        bench.seal(1)
    assert (caught.value.code, caught.value.where) == (Code.BASELINE_UNEXPLAINED, "window 1")
    register = measurement_log.replay(bytes(digest_size(bank)), bench.log.records(), bank, pcr=LOG_PCR)
    assert (caught.value.expected, caught.value.got) == (shorten(register), shorten(bench.tpm.pcrs[bank][LOG_PCR]))
    assert "--log-pcr" in caught.value.hint
    assert bench.events == ["disk", "quote"] * 2


def test_neither_is_it_when_the_log_goes_on_meanwhile() -> None:
    """What is loaded afterwards explains nothing of what came before."""
    bench = Bench()
    bench.extend(b"cryptsetup:data")
    bench.log.load(manifest())
    with pytest.raises(EnvironmentFault) as caught:
        bench.seal()
    assert caught.value.code is Code.BASELINE_UNEXPLAINED
    assert "sign" not in bench.events


def test_a_record_on_its_way_into_the_log_is_waited_for() -> None:
    """Extended, and not to be read yet: another look finds it."""
    bench = Bench()
    bench.log.append(AttesterStart("0.1.0", bytes(16)))
    late = [bench.log.entries.pop()]

    def written() -> None:
        if late and bench.events.count("quote") == 1:
            return
        bench.log.entries.extend(late)
        late.clear()

    bench.tpm.on_quote = written
    _, evidence, header = bench.seal()
    assert header.log_length == 2
    assert len(measurement_log.parse_records(evidence.log)) == 1
    assert bench.events == ["disk", "gpu", "quote"] * 3 + ["sign"]


def test_a_log_may_begin_on_what_the_boot_left() -> None:
    bench = Bench(before=b"machine-id")
    bench.log.load(manifest())
    _, evidence, _ = bench.seal(0)
    bench.log.load(manifest("another"))
    _, evidence, header = bench.seal(1)
    assert header.log_length == 3
    assert QuoteEvidence.parse(evidence.quote).pcr_values[-1] == bench.tpm.pcrs[HashAlgorithm.SHA256][LOG_PCR]


def test_a_window_that_no_verifier_would_read_is_not_released() -> None:
    bench = Bench()
    bench.log.load(manifest())
    with pytest.raises(EnvironmentFault) as caught:
        bench.seal(telemetry=bytes(limits.EVIDENCE_MAX))
    assert caught.value.code is Code.TOO_LARGE
    # What it would have carried goes with the next one.
    _, evidence, _ = bench.seal()
    assert len(measurement_log.parse_records(evidence.log)) == 1


def test_a_reset_tpm_seals_nothing() -> None:
    bench = Bench()
    bench.tpm.reset()
    with pytest.raises(EnvironmentFault) as caught:
        bench.seal()
    assert caught.value.code is Code.TPM_RESET
