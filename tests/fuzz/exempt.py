"""What looks like a parser and is not fuzzed, each with its reason: it parses nothing, or nothing of its own."""

from __future__ import annotations

from typing import Final

__all__ = ["EXEMPT"]

_PLACE: Final = "takes the name of a place; what is read there goes to a parser of its own"


EXEMPT: Final = {
    "attester.client:Line.open": "hands bytes to the verifier",
    "attester.doctor.host:Host.read": _PLACE,
    "attester.gpu.bounded:BoundedCalls.one": "takes the name of a call",
    "attester.gpu.emulated_vendor:DeviceKeys.from_pem": "keys of emulated devices, which no production policy takes",
    "attester.gpu.emulated_vendor:EmulatedVendor.from_pem": "as DeviceKeys.from_pem",
    "attester.model_signing.keyless:verify_bundle": "the sigstore library's; ours before it is Bundle.parse",
    "attester.model_signing.verification:verify": "model_signing.bundle:Bundle.parse, then files of the model",
    "attester.telemetry.sysfs:read_number": _PLACE,
    "attester.tpm.device:Tpm.open": _PLACE,
    "policy.checker.syntax:parse": "the engine's own tree; tests/unit/policy/test_checker_fuzz.py has policies",
    "proto.cosignature:WitnessKey.from_spki": "a key of the anchors, which anchors:load has parsed",
    "proto.merkle:verify_inclusion": "32 bytes: a hash",
    "proto.model_files:kind_of": "a file's name",
    "proto.note:NoteKey.from_spki": "a key of the anchors, which anchors:load has parsed",
    "proto.strict:unpack": "its first argument is a layout; every binary parser calls it",
    "verifier.baseline_watch:BaselineKeeper.verify": "baseline_set:verify, remembered",
    "verifier.commands.baseline_show:read_baseline": _PLACE,
    "verifier.commands.baseline_text:read_recording": _PLACE,
    "verifier.commands.bundle:read_bundle": _PLACE,
    "verifier.commands.gate_line:read_file": _PLACE,
    "verifier.commands.identity:read_token": "takes the name of a place; what is read there is sent on as it is",
    "verifier.commands.ledger_receipt:verify_entry": "receipt:parse or tlog:parse_proof, then hashes",
    "verifier.commands.ledger_receipt:verify_growth": "receipt:parse, then hashes",
    "verifier.commands.outcome:read_reference": _PLACE,
    "verifier.commands.reference_show:read_host_set": _PLACE,
    "verifier.commands.workers:Worker.parse": "written by the parent process; takes over a descriptor",
    "verifier.disclosed:verify_alone": "procedure:authenticate, then the steps that the target `windows` has",
    "verifier.enroller:Enroller.open": "core:Verifier.open behind its bounds",
    "verifier.gate.verifiers:Verifiers.verify": "result.verifying:verify_any with a choice of keys",
    "verifier.gpu.recorded:load_bytes": _PLACE,
    "verifier.gpu.recorded:load_chain": _PLACE,
    "verifier.gpu.recorded:load_evidence": _PLACE,
    "verifier.gpu.recorded:load_report": _PLACE,
    "verifier.ledger.bucket_storage:BucketStorage.read": _PLACE,
    "verifier.ledger.source:BucketSource.read": _PLACE,
    "verifier.ledger.source:DirectorySource.read": _PLACE,
    "verifier.ledger.source:HttpSource.read": _PLACE,
    "verifier.ledger.source:Source.read": _PLACE,
    "verifier.ledger.source:open_source": _PLACE,
    "verifier.ledger.storage:DirectoryStorage.read": _PLACE,
    "verifier.ledger.storage:Storage.read": _PLACE,
    "verifier.stood:Stands.one": "an identifier that a caller has already",
}
