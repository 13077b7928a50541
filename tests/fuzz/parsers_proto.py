"""The parsers of ``proto``: what two parties must compute to the same bytes."""

from __future__ import annotations

from typing import Final

from fuzz import seeds, seeds_ledger
from fuzz.seeds import vector
from fuzz.specs import Spec, encode, raw
from weighbridge.proto import cbor, tlog, zstd
from weighbridge.proto.errors import LedgerInconsistent, MalformedEvidence, NotAuthentic
from weighbridge.proto.measurement_log import encode_records
from weighbridge.proto.spdm import evidence as gpu_evidence

GOOD: Final = "bundle/001-good"
BOOT: Final = "boot/001-known-host"
SNP: Final = "platform/002-sev-snp-in-production"
OWNERS: Final = "models/001-accepted-by-its-owner"
AUTHORS: Final = "policies/002-newer-policy-that-admits-nobody"
BASELINES: Final = "baselines/001-newer-set-of-its-owner"
BELIEVED: Final = (MalformedEvidence, NotAuthentic)

SPECS: Final = (
    # Encodings.
    Spec("proto.cbor:decode", case=GOOD, again=cbor.encode),
    Spec("proto.cbor:read_versioned", case=GOOD),
    Spec("proto.strict:json_decode", case=GOOD),
    Spec("proto.strict:base64_decode", case=GOOD),
    Spec("proto.strict:base64url_decode", case=SNP),
    Spec("proto.strict:hex_decode", case=GOOD),
    Spec("proto.strict:time_decode", case=OWNERS),
    Spec("proto.der:elements", case="endorsement/001-certified-by-a-cloud"),
    Spec("proto.der:one", case="endorsement/001-certified-by-a-cloud"),
    Spec(
        "proto.zstd:decompress",
        seeds=lambda: [zstd.compress(b"content " * 8, level=3)],
        call=lambda function, data: function(data, size=64, what="seed"),
    ),
    Spec("proto.cose:parse", case=GOOD, again=raw),
    Spec("proto.cose:claimed_typ", case=OWNERS),
    Spec("proto.cose:load_p256", case=GOOD),
    Spec("proto.x509:load_certificate", case=GOOD),
    Spec(
        "proto.x509:claimed_maker",
        case=GOOD,
        seeds_of="proto.x509:load_certificate",
        call=lambda function, data: function(data),
    ),
    Spec(
        "proto.x509:pem_certificates",
        seeds=lambda: [seeds.signer()[2]],
        call=lambda function, data: function(data, what="seed"),
    ),
    # A session.
    Spec("proto.enrolment:Opening.parse", case=GOOD, again=encode),
    Spec("proto.enrolment:EnrolmentChallenge.parse", seeds=lambda: [vector("enrolment-challenge")], again=encode),
    Spec("proto.enrolment:EnrolmentProof.parse", case=GOOD, again=encode),
    Spec("proto.terms:Terms.parse", case=GOOD, again=encode),
    Spec("proto.terms:SignedTerms.open", case=GOOD, errors=BELIEVED, again=raw),
    Spec("proto.window:Evidence.parse", case=GOOD, again=encode),
    Spec("proto.window:Header.parse", case=GOOD, again=encode),
    # Many frames have one content, and their digest is of the bytes as sent.
    Spec("proto.telemetry.message:Telemetry.parse", case=GOOD),
    Spec("proto.spot:SpotChallenge.parse", case="spot/002-answered-from-stored-digests", again=encode),
    Spec("proto.spot:SpotPool.from_json", seeds=lambda: [vector("spot-pool")]),
    Spec("proto.token_key:TokenKeyStatement.parse", seeds=lambda: [seeds.token_key_statement()]),
    # Devices.
    Spec("proto.spdm.evidence:parse", case=GOOD, again=gpu_evidence.encode),
    Spec("proto.spdm.report:parse", case=GOOD),
    Spec("proto.spdm.opaque:parse", case=GOOD),
    Spec("proto.tpm.attest:parse", case=GOOD),
    Spec("proto.tpm.signature:parse", case=GOOD),
    Spec("proto.tpm.public:parse", case=GOOD, again=raw),
    Spec("proto.tpm.evidence:QuoteEvidence.parse", case=GOOD, again=encode),
    Spec("proto.tpm.pcr:parse", seeds=lambda: [bytes.fromhex("00000001000b03ff8000")], again=encode),
    Spec("proto.tee.snp:parse", case=SNP),
    Spec("proto.tee.hcl:parse", case=SNP),
    Spec("proto.tee.chip_certificate:parse", case=SNP),
    Spec("proto.tee.td_quote:parse_td_quote", seeds=lambda: [seeds.TDX.quote(bytes(64))]),
    # Logs of boots, and of what the attester loads.
    Spec("proto.boot:BootLogs.parse", case=BOOT, again=encode),
    Spec("proto.eventlog.ima:parse", case=BOOT),
    Spec("proto.eventlog.systemd:parse", case=BOOT),
    Spec("proto.eventlog.tcg2:parse", case=BOOT),
    Spec("proto.eventlog.cel:parse", seeds=lambda: [seeds.cel()]),
    Spec("proto.eventlog.reading:read", case="logs/001-whole-boot"),
    Spec("proto.eventlog.reading:detect", case="logs/001-whole-boot"),
    Spec("proto.measurement_log:parse_record", case=GOOD),
    Spec("proto.measurement_log:parse_records", case=GOOD, again=encode_records),
    Spec("proto.measurement_events:event_from_cbor", case=GOOD),
    # Models.
    Spec("proto.manifest:Manifest.parse", case=GOOD),
    Spec("proto.manifest:Manifest.unpack", case=GOOD),
    Spec("proto.manifest:Manifest.unpack_head", case=GOOD),
    Spec("proto.manifest:Manifest.from_json", seeds=lambda: [vector("manifest-json")]),
    Spec("proto.manifest:parse_manifests", case=GOOD),
    Spec("proto.model_files:decode_table", case=GOOD),
    Spec("proto.model_signing.bundle:Bundle.parse", seeds=lambda: [seeds.model_bundle()]),
    Spec("proto.model_signing.statement:Statement.parse", seeds=lambda: [seeds.model_statement()]),
    Spec("proto.statement:Statement.parse", case=OWNERS, seeds=lambda: [seeds.ml_bom()]),
    # Sets that owners sign, and baselines.
    Spec("proto.reference_set:ReferenceSet.parse", case=OWNERS, again=encode),
    Spec("proto.reference_set:SignedSet.parse", case=OWNERS),
    Spec("proto.host_set:HostSet.parse", seeds=lambda: [seeds.host_set(signed=False)], again=encode),
    Spec("proto.host_set:SignedHostSet.parse", seeds=lambda: [seeds.host_set(signed=True)]),
    Spec("proto.policy_bundle:PolicyBundle.parse", case=AUTHORS, again=encode),
    Spec("proto.policy_bundle:SignedPolicyBundle.parse", case=AUTHORS),
    Spec("proto.baseline:BaselineSet.parse", case=BASELINES, again=encode, slow=True),
    Spec("proto.baseline:SignedBaselineSet.parse", case=BASELINES, slow=True),
    Spec("proto.profile:Profile.parse", seeds=lambda: [seeds.profile()], again=encode),
    Spec("proto.recording:Recording.parse", seeds=lambda: [seeds.recording()], again=encode),
    Spec("proto.collateral:Collateral.parse", seeds=lambda: [seeds.collateral()], again=encode),
    # The ledger.
    Spec("proto.tlog:Checkpoint.parse", case=GOOD, again=encode),
    Spec("proto.tlog:open_checkpoint", case=GOOD, errors=(*BELIEVED, LedgerInconsistent)),
    Spec("proto.tlog:parse_tile", case=GOOD, again=b"".join),
    Spec("proto.tlog:parse_bundle", case=GOOD, again=tlog.encode_bundle),
    Spec("proto.tlog:parse_proof", seeds=lambda: [vector("ledger-proof")]),
    Spec("proto.note:parse", case=GOOD, again=raw),
    Spec("proto.note:parse_vkey", seeds=lambda: [seeds_ledger.NOTE_KEY.vkey.encode()]),
    Spec(
        "proto.note:read_vkey",
        seeds=lambda: [seeds_ledger.NOTE_KEY.vkey.encode()],
        call=lambda function, text: function(text, kind=b"\x01"),
    ),
    Spec("proto.cosignature:parse_lines", seeds=lambda: [seeds_ledger.cosigned()]),
    Spec("proto.cosignature:parse_vkey", seeds=lambda: [seeds_ledger.witness_key()]),
    Spec("proto.receipt:parse", seeds=lambda: [vector("ledger-receipt")], again=raw),
)
