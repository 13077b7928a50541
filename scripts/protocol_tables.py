"""The lists of docs/protocol.md that are taken from the code: labels, sizes, error codes.

What a code means is written here; by which errors it is raised is read out of the source, so that the document says
what the code does. A code without a meaning, or a meaning without a code, is an error.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final, get_args

from weighbridge.proto import limits
from weighbridge.proto.digest import Label
from weighbridge.proto.errors import Code, ExitCode

__all__ = ["codes", "labels", "limits_table"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_PARTS: Final = ("attester", "verifier", "policy", "proto")
_DIGEST: Final = _ROOT / "proto" / "weighbridge" / "proto" / "digest.py"
_ERRORS: Final = _ROOT / "proto" / "weighbridge" / "proto" / "errors.py"

_LABEL_LINE: Final = re.compile(r'    "(?P<label>[a-z]+)",  # (?P<use>.+)')
_GROUP_LINE: Final = re.compile(r"    # (?P<group>.+)|    (?P<code>[A-Z0-9_]+) = .*")

_EXITS: Final = {
    "MalformedEvidence": ExitCode.MALFORMED,
    "NotAuthentic": ExitCode.NOT_AUTHENTIC,
    "PolicyDenied": ExitCode.DENIED,
    "Indeterminate": ExitCode.INDETERMINATE,
    "LedgerInconsistent": ExitCode.LEDGER_INCONSISTENT,
    "EnvironmentFault": ExitCode.ENVIRONMENT,
}
_DENIAL: Final = "Denial"
_DEPTH: Final = 1
_Function = ast.FunctionDef | ast.AsyncFunctionDef

_SIZES: Final = {
    "MESSAGE_MAX": "one gRPC message",
    "EVIDENCE_MAX": "one evidence collection, or one part of it; a boot's logs together",
    "PROOF_MAX": "one enrolment proof",
    "HEADER_MAX": "one header; a signed header may have 256 bytes more",
    "TERMS_MAX": "an enrolment challenge, terms, signed terms, requirements",
    "GPU_REPORT_MAX": "one GPU report",
    "GPU_CHAIN_MAX": "all certificates of one GPU together",
    "GPU_CHAIN_CERTS_MAX": "certificates of one chain (a number)",
    "GPUS_MAX": "GPUs of one session (a number)",
    "CERT_MAX": "one certificate, DER",
    "TPM_STRUCTURE_MAX": "one marshalled TPM structure; one quote evidence in a window",
    "VTPM_REPORT_MAX": "one report of a paravisor",
    "TD_QUOTE_MAX": "one TD quote",
    "COLLATERAL_ITEM_MAX": "one piece of collateral",
    "COLLATERAL_ITEMS_MAX": "pieces of collateral in one opening (a number)",
    "COLLATERAL_SNAPSHOT_MAX": "pieces of collateral that a verifier judges by (a number)",
    "NRAS_ANSWER_MAX": "one answer of NVIDIA's attestation service",
    "OPENING_MAX": "one opening",
    "PCRS_MAX": "PCRs (a number): registers are 0 to 23",
    "TELEMETRY_MAX": "telemetry of one window",
    "TELEMETRY_CONTENT_MAX": "the same, unpacked",
    "TELEMETRY_ITEMS_MAX": "CBOR items of it (a number)",
    "TELEMETRY_VALUES_MAX": "integers in typed arrays of it (a number)",
    "TELEMETRY_EVENTS_MAX": "events of one source (a number)",
    "TELEMETRY_SOURCES_MAX": "sources of one window (a number)",
    "TELEMETRY_CHANNELS_MAX": "channels of one source (a number)",
    "TELEMETRY_SAMPLES_MAX": "samples of one source (a number)",
    "RECORDING_MAX": "one recording",
    "RECORDING_WINDOWS_MAX": "windows of one recording (a number)",
    "RECORDING_ITEMS_MAX": "CBOR items of one recording (a number)",
    "LOG_RECORD_MAX": "one measurement-log record",
    "LOG_RECORDS_MAX": "records of one log, and of one message (a number)",
    "EVENT_LOG_MAX": "one event log in a file: of firmware, of IMA, or a CEL",
    "EVENT_LOG_EVENTS_MAX": "events of one such log (a number)",
    "BOOT_LOG_MAX": "firmware's or systemd's log in one message",
    "RUNTIME_LOG_MAX": "what is new of the kernel's list in one message",
    "MANIFEST_MAX": "the head of one manifest",
    "MANIFEST_FILES_MAX": "files of one manifest (a number)",
    "MANIFEST_PARTS_MAX": "parts of one manifest: tensors and what lies between them (a number)",
    "MANIFEST_PACKED_MAX": "head and tables of one manifest",
    "MANIFEST_JSON_MAX": "one manifest as JSON",
    "MANIFEST_TABLES_MAX": "tables that are sent with all manifests of a message",
    "ADAPTERS_MAX": "declared manifests beside the model's (a number)",
    "MANIFESTS_MAX": "manifests in one message (a number)",
    "SPOT_RANGES_MAX": "ranges of one spot challenge (a number)",
    "SPOT_BYTES_MAX": "bytes in all ranges of one spot challenge together",
    "SPOT_CHALLENGE_MAX": "one spot challenge",
    "SPOT_POOL_CHALLENGES_MAX": "challenges of one pool document (a number)",
    "SPOT_POOL_MAX": "one pool document",
    "MODEL_SIGNATURE_MAX": "one OpenSSF model signature",
    "MODEL_SIGNATURE_RESOURCES_MAX": "files or shards of one such signature (a number)",
    "MODEL_SIGNATURE_CERTS_MAX": "certificates of one such signature (a number)",
    "REFERENCE_SET_MAX": "one reference set, signed",
    "REFERENCE_SET_MODELS_MAX": "models of one reference set (a number)",
    "REFERENCE_SET_REVOKED_MAX": "revocations of one reference set (a number)",
    "STATEMENT_MAX": "one statement, a DSSE envelope",
    "STATEMENTS_MAX": "statements about one model in one reference set (a number)",
    "HOST_SET_MAX": "one host set, signed",
    "HOST_SET_FILES_MAX": "files in one host set (a number)",
    "HOST_SET_VALUES_MAX": "accepted values of one PCR in one host set (a number)",
    "HOST_SET_FIRMWARE_MAX": "accepted firmware versions in one host set (a number)",
    "PROFILE_MAX": "one profile of a baseline",
    "PROFILE_RUNS_MAX": "runs of one profile (a number)",
    "PROFILE_RUN_UNITS_MAX": "units of one run of a profile (a number)",
    "PROFILE_DEVIATIONS_MAX": "numbers of units after which a profile says what is seen (a number)",
    "BASELINE_SET_MAX": "one baseline set, signed",
    "BASELINE_SET_PROFILES_MAX": "profiles in one baseline set (a number)",
    "POLICY_BUNDLE_MAX": "one policy bundle, signed",
    "POLICY_BUNDLE_FILES_MAX": "files in one policy bundle (a number)",
    "POLICY_MAX": "all files of one policy together",
    "REFERENCE_MAX": "the reference values in force, as JSON",
    "CONTENT_MAX": "one item of the verifier's content store",
    "NAME_MAX": "a text for which nothing else is said, in UTF-8",
    "LEDGER_ENTRY_MAX": "one ledger entry",
    "CHECKPOINT_MAX": "one signed note; an offline proof may have twice as much",
    "LEDGER_RECEIPT_MAX": "one receipt of the ledger",
    "BUNDLE_MAX": "one proof bundle",
    "BUNDLE_CONTENT_MAX": "its content, unpacked",
    "BUNDLE_REQUESTS_MAX": "requests that one bundle shows (a number)",
    "JSON_MAX": "one JSON document for which nothing else is said",
    "JSON_DEPTH_MAX": "nesting of JSON (a number)",
    "CBOR_DEPTH_MAX": "nesting of CBOR (a number)",
    "TOKEN_MAX": "one result token",
    "TOKEN_KEY_MAX": "one statement that endorses a key for tokens",
    "JWKS_MAX": "a verifier's keys for tokens",
    "NONCE_SIZE": "a challenge, an SPDM nonce, a qualifyingData: exactly this",
    "DIGEST_SIZE": "a SHA-256 digest: exactly this",
}

_MEANINGS: Final[dict[str, str]] = {
    "TOO_LARGE": "longer, or more of them, than the limit (§11)",
    "TOO_DEEP": "nested deeper than the limit (§11)",
    "TRUNCATED": "ends inside a field",
    "TRAILING_BYTES": "bytes follow the structure",
    "NOT_CBOR": "not in the CBOR subset of §1.2",
    "NOT_DETERMINISTIC": "a second encoding of the same value, or bytes follow it",
    "NOT_JSON": "not JSON in the sense of §1.3",
    "DUPLICATE_KEY": "a key, an entry or a type stands twice",
    "NOT_HEX": "not lower-case hexadecimal",
    "NOT_BASE64": "not canonical base64",
    "NOT_A_NUMBER": "not a decimal number without sign and leading zeros",
    "NOT_A_TIME": "not an RFC 3339 time in UTC",
    "NOT_UTF8": "not UTF-8, or half a character",
    "NOT_ZSTD": "not exactly one zstd frame of the stated size, without a dictionary",
    "NOT_TOML": "a configuration file, or a variable in its place, that is not TOML 1.0",
    "FIELD_MISSING": "a required field is absent; null is not absent",
    "FIELD_UNKNOWN": "a field that the structure does not have",
    "FIELD_TYPE": "a field of another type",
    "FIELD_RANGE": "a value or length outside its range",
    "VERSION_UNSUPPORTED": "another type or version than this document's",
    "COSE_HEADER": "a COSE header other than the one of §1.4",
    "COSE_SIGNATURE": "a COSE signature of the wrong length, or that does not verify",
    "KEY_MALFORMED": "not a public key, or not canonically encoded",
    "KEY_UNSUPPORTED": "a key of a type, curve or size that is not accepted there",
    "CERT_MALFORMED": "not a certificate, or one with a bad serial number, repeated extension or unexpected shape",
    "CHAIN_BROKEN": "a link of a certificate chain does not hold: name, signature, authority, path length, extension",
    "CHAIN_UNTRUSTED": "no anchor for this purpose vouches for the key or chain",
    "CHAIN_EXPIRED": "a certificate or anchor is not valid at the time of judging",
    "CHAIN_LENGTH": "too few or too many certificates",
    "ANCHORS_INVALID": "a trust-anchors document that contradicts itself, or names an emulated platform by default",
    "TPM_STRUCTURE": "a TPM structure with a field out of its range",
    "TPM_MAGIC": "an attestation that does not begin with TPM_GENERATED",
    "TPM_ATTEST_TYPE": "an attestation of another kind than demanded",
    "TPM_NONCE": "qualifyingData of another length or value",
    "TPM_SIGNATURE": "the AK's signature does not verify",
    "TPM_ALGORITHM": "an algorithm outside the table, or not the key's",
    "TPM_PCR_SELECTION": "another PCR selection than demanded, or one that no quote may have",
    "TPM_PCR_VALUES": "PCR values that are not the quoted ones, or a boot register that changed",
    "TPM_RESET": "the TPM was reset or restarted within the session",
    "TPM_CLOCK": "the TPM's clock did not advance, or is not safe",
    "TPM_FIRMWARE": "the TPM's firmware changed within the session",
    "EK_CERT_MISMATCH": "the certificate is not for this endorsement key, or not an endorsement key's",
    "EK_TEMPLATE": "the endorsement key is of no accepted template",
    "AK_ATTRIBUTES": "not a restricted signing key fixed to its TPM, or not in the endorsement hierarchy",
    "AK_UNPROVEN": "the credential was not activated, or the key is not pinned",
    "TELEMETRY_KEY_MISMATCH": "another telemetry key than the session's or the certified one",
    "TELEMETRY_KEY_HIERARCHY": "the telemetry key is no primary of the NULL hierarchy",
    "TELEMETRY_KEY_ATTRIBUTES": "the telemetry key has other attributes than the template's",
    "TELEMETRY_KEY_POLICY": "the telemetry key is not bound to the enrolled boot PCRs",
    "AK_CERT_MISMATCH": "the certificate is not for this attestation key, or not an attestation key's",
    "SNP_REPORT": "not a SEV-SNP attestation report of a version that is read",
    "SNP_SIG": "the report's signature does not verify under the chip's key",
    "SNP_TCB": "the report names another TCB than the chip's certificate, or one that cannot be",
    "SNP_CHIP": "the report is of another chip than the certificate, or hides which",
    "SNP_POLICY": "the guest may be debugged, or moved by a migration agent",
    "SNP_VMPL": "the report was asked for at another privilege level than the demanded one",
    "TDX_QUOTE": "not a TD quote of a version that is read",
    "TDX_SIG": "the quote's signatures do not verify under its chain",
    "TDX_DEBUG": "the trust domain may be debugged",
    "TDX_ATTRIBUTES": "the trust domain has attributes that are reserved or weaken it, or lacks one that protects it",
    "TDX_TCB": "platform, TDX module or quoting enclave is revoked, below every level, or not as Intel describes it",
    "TDX_COLLATERAL": "what Intel says of the platform is absent, out of date, or of another platform",
    "HCL_REPORT": "not a report of Azure's paravisor",
    "HCL_BINDING": "the paravisor's claims are not those that the hardware signed",
    "CERT_REVOKED": "a certificate is revoked",
    "CRL_INVALID": "a revocation list that is not its issuer's, or not one",
    "BOOT_LOG": "a boot log does not lead to the quoted registers",
    "BOOT_MISMATCH": "the host booted something else than its reference values accept",
    "RUNTIME_LOG": "the kernel's list of measured files does not lead to the quoted PCR 10",
    "RUNTIME_VIOLATION": "the kernel could not say what it measured",
    "GPU_REPORT_MALFORMED": "not an SPDM 1.1 measurement report in NVIDIA's layout",
    "GPU_CHAIN": "names or keys of the chain are not a GPU's",
    "GPU_SIG": "the report's signature does not verify under the chain's key",
    "GPU_NONCE": "the report was signed for another nonce",
    "GPU_FWID": "report and certificate name different firmware, or the certificate names none",
    "GPU_ARCH": "an NVSwitch, an unknown architecture, or another than declared",
    "GPU_MISSING": "no GPU, or fewer than enrolled or demanded",
    "GPU_DUPLICATE": "one GPU is presented twice",
    "GPU_UNEXPECTED": "a GPU that is not enrolled, or more than demanded",
    "GPU_REFERENCE_ABSENT": "no reference measurements for this architecture, driver and VBIOS",
    "GPU_MEASUREMENT_MISMATCH": "measurements that are not among the reference measurements",
    "GPU_REVOCATION_UNKNOWN": "whether a certificate is revoked is not known",
    "GPU_REVOKED": "a certificate is revoked or on hold",
    "GPU_CC_MODE": "the host itself says that confidential mode is off, or in development mode",
    "GPU_TOPOLOGY": "GPUs and switches that do not name each other, where protected PCIe is claimed",
    "GPU_UNCOVERED": "a measurement that is not zero, and in no reference manifest: told, not refused",
    "GPU_OUTDATED": "a driver or VBIOS older than the relying party accepts, or of an unknown version",
    "GPU_MODE": "a mode of the device, as it signed it, that is unknown, contradicts itself or is not the demanded one",
    "RIM_MALFORMED": "not a reference integrity manifest in the accepted form",
    "RIM_SIG": "the manifest's signature does not verify, or does not cover what is read",
    "RIM_CHAIN": "the manifest's signer is not one of the maker's",
    "RIM_EXPIRED": "the manifest's signer is not valid at the time of judging",
    "RIM_VERSION": "the manifest is of another version than its name says",
    "RIM_ABSENT": "there is no manifest for this driver or VBIOS",
    "RIM_CONFLICT": "driver's and VBIOS's manifests both claim a measurement",
    "OCSP_INVALID": "not an OCSP response, or not one of the certificate's issuer",
    "NRAS_MALFORMED": "not an answer of NVIDIA's attestation service",
    "NRAS_ALG": "a token of another algorithm than the pinned one, or that brings its own key",
    "NRAS_SIG": "a token's signature does not verify under the archived keys",
    "NRAS_ISSUER": "a token of another issuer, or whose key no trusted root vouches for",
    "NRAS_NONCE": "a token for another nonce",
    "NRAS_SUBMODS": "device tokens missing, added or exchanged",
    "NRAS_TIME": "a token that is not valid at the time of judging, or its key not at the token's",
    "NRAS_AUDIENCE": "a token addressed to an audience: the service's are not, and are no permission",
    "NRAS_KEY_ABSENT": "the key that a token names is in none of the archived key sets",
    "NRAS_CONTRADICTS": "the attestation service says of a device what speaks against it",
    "COLLATERAL_INVALID": "a file that is no collateral, or a store that contradicts itself",
    "COLLATERAL_FETCH": "collateral could not be fetched",
    "NONCE_LENGTH": "a nonce of another length than 32 bytes",
    "NONCE_DENIED": "a constant, periodic, counting or published nonce",
    "CHALLENGE_UNKNOWN": "a challenge that was not issued for this session and window",
    "WINDOW_HELD": "the window came under an old challenge or too late: kept, and never admitted",
    "WINDOW_PROFILE": "another eat_profile",
    "WINDOW_TENANT": "another tenant",
    "WINDOW_SESSION": "another session",
    "WINDOW_AUDIENCE": "another audience or verifier",
    "WINDOW_TERMS": "other terms, another model, or terms that were not proposed",
    "WINDOW_SEQ": "not the next window",
    "WINDOW_PREV": "continues another chain",
    "WINDOW_DUPLICATE": "recorded already",
    "WINDOW_FORK": "a second window of one number, signed by the session's key",
    "WINDOW_INTERVAL": "an interval that is reversed, overlaps, lies in the future or outside the two quotes",
    "WINDOW_PEER": "came over another channel than that of the named key",
    "WINDOW_CNF": "another serving key or HPKE key",
    "EVIDENCE_ABSENT": "a kind of evidence, or stored content, is not there",
    "EVIDENCE_UNEXPECTED": "a kind of evidence that the terms do not demand in this window",
    "TELEMETRY_DIGEST": "telemetry other than the signed",
    "TELEMETRY_SESSION": "telemetry of another session or window",
    "TELEMETRY_DEVICE": "telemetry of a device that is not enrolled, or none of one that is",
    "TELEMETRY_TIME": "the samples are of another time than the window, or there are none",
    "TELEMETRY_NO_BASELINE": "there is no baseline to compare the telemetry with",
    "TELEMETRY_OUT_OF_BASELINE": "the telemetry is not what its baseline says of this model on this GPU",
    "TELEMETRY_IMPLAUSIBLE": "the telemetry cannot be: no GPU behaves so",
    "TELEMETRY_UNUSABLE": "the telemetry does not suffice to be judged yet, or a sensor failed: nothing is said",
    "TELEMETRY_UNREPORTED": "a GPU used more energy between two sessions than an idle one does, or what it used is not "
    "known: a warning",
    "WORKLOAD_COUNTS": "counts that contradict each other or the root",
    "WORKLOAD_DIFFERS": "declared counts are not those of the server's own counters",
    "LOG_GAP": "a record number out of sequence",
    "LOG_HEAD": "another log than the header signs",
    "LOG_REPLAY": "the log does not lead to the quoted register, or a record extends another one",
    "LOG_DIGEST": "a record's digest is not that of its content, or there is none for SHA-256",
    "LOG_EVENT": "an event that cannot be: what is not loaded is unloaded, or a boot begins twice",
    "LOG_SHA1_ONLY": "a boot log of the old format, with SHA-1 digests only",
    "LOG_VIOLATION": "the log replays, but the kernel could not say what some entries measured",
    "BASELINE_UNEXPLAINED": "the log does not account for everything since boot",
    "MANIFEST_DIGEST": "a stated digest that is not the content's",
    "MANIFEST_MISSING": "a manifest that a record names did not come with it",
    "WEIGHTS_MISMATCH": "what was loaded differs from what was declared, in the named file and tensor",
    "MODEL_UNDECLARED": "a model was loaded that is not declared",
    "MODEL_NOT_LOADED": "the declared model is not loaded",
    "WEIGHTS_UNREADABLE": "a file of the model cannot be measured",
    "WEIGHTS_CHANGED": "a file of the model changed while it was measured",
    "WEIGHTS_AMBIGUOUS": "two names in the model's directory that differ by case or Unicode normalisation only",
    "LOAD_MISMATCH": "a guard in the serving process was about to hand over other bytes than were measured",
    "LOAD_UNGUARDED": "a file that a guard cannot compare: in no measured directory, or not in its manifest",
    "MODEL_SIGNATURE": "an OpenSSF model signature that its signer's key did not make",
    "MODEL_SIGNATURE_MODE": "a model signature of another mode than asked for (key, certificate), or one not read",
    "MODEL_SIGNER": "a model signature that names another key than the one that is trusted or given",
    "MODEL_FILE_MISSING": "a file that the model's signature names is not there",
    "MODEL_FILE_UNSIGNED": "a file that is neither signed nor ignored, or a link where the signature allows none",
    "MODEL_FILE_DIFFERS": "a file of another content or size than was signed",
    "CERT_PURPOSE": "a certificate whose key is not for signing, or not of an accepted kind",
    "SPOT_ABSENT": "a spot check was due in this window, and its answer is not there",
    "SPOT_WRONG": "the answer to another spot check, or not the one that its owner computed from the model's bytes",
    "SPOT_POOL_EMPTY": "a spot check was due, and the verifier had none left for this model: a warning",
    "MODEL_REVOKED": "a model that is loaded or declared was revoked by an owner",
    "MODEL_EXPIRED": "no reference set that accepts the model was valid when the window was received",
    "HOST_SET_EXPIRED": "the host set that accepts this host was not valid when the window was received",
    "REFERENCE_ROLLBACK": "an older reference set of an owner than one seen before, or another one of the same number",
    "BASELINE_DRIFT": "a baseline that is further from the one before it than its owner accepts",
    "BASELINE_RUNS": "too few runs for a baseline, or too little of this device in one",
    "BASELINE_SCOPE": "runs of different stacks, rates or origins in one baseline, or one that is there twice",
    "BASELINE_CONFLICT": "two owners have a baseline for the same GPU and model at the same time",
    "RECORDING_DENIED": "a session in which a window was denied or implausible: no baseline is learned from it",
    "RECORDING_EMPTY": "nothing was recorded of what is asked about",
    "STATEMENT_UNTRUSTED": "a statement about a model that no anchor of purpose statement-issuer has signed",
    "STATEMENT_SUBJECT": "a statement about another model than the one under which it stands",
    "SESSION_UNKNOWN": "no such session, or none on this stream",
    "SESSION_STATE": "the session has ended",
    "SESSION_FAILED": "the session has failed, which is final",
    "PEER_ROLE": "a relying party attests, or a peer whose certificate is not from the attesters' authority",
    "SUBJECT_FAILED": "this AK or GPU failed before and was not cleared",
    "POLICY_INVALID": "a policy that is too large, does not parse, or that the checker refuses",
    "POLICY_DENIED": "the policy does not allow the window, and gave no other reason",
    "POLICY_UNDEFINED": "the policy gave no answer",
    "POLICY_ERROR": "the policy ended in an error",
    "POLICY_TIMEOUT": "the policy took too long",
    "POLICY_CRASHED": "the policy engine died",
    "POLICY_DISAGREE": "two policy engines give different answers",
    "POLICY_FOREIGN": "a policy that was written for another verifier, and is asked beside ours, does not consent",
    "POLICY_OUTPUT": "the policy's answer has another shape",
    "POLICY_ROLLBACK": "an older policy bundle than one that was in force, or another of its number or in its place",
    "POLICY_TENANT": "a policy bundle for another tenant than its author's key speaks for",
    "POLICY_EXPIRED": "the policy bundle is not valid at the time of receipt: nothing is judged",
    "POLICY_ABSENT": "no policy is in force for the session's tenant: nothing is judged",
    "PLATFORM_EMULATED": "evidence of a platform that is not genuine",
    "PLATFORM_WEAK": "a platform, or a state of it, that is known to be broken",
    "PLATFORM_CLASS": "the policy is for another kind of machine",
    "HOST_STATE_HELD": "the host holds the state of the guest's TPM",
    "HOST_TRUSTED": "nothing proves that the TPM stands beside the GPUs: whoever runs the host is trusted, a warning",
    "AUDIT_ONLY": "the policy observes, and admits nothing",
    "REFERENCE_ABSENT": "a model without reference values",
    "UNPROVEN": "what no evidence proves, and nobody wrote a reason to leave unchecked",
    "TOKEN_MALFORMED": "not a token of this profile",
    "TOKEN_SIGNATURE": "the token is not signed by the trusted key",
    "TOKEN_EXPIRED": "the token has expired",
    "TOKEN_NOT_YET_VALID": "a token that was issued in the future",
    "TOKEN_AUDIENCE": "the token is for another audience",
    "TOKEN_KEY_PERIOD": "the key of the token was not in use when the token was issued",
    "TOKEN_KEY_ENDORSEMENT": "a key for tokens that no trusted verifier has endorsed",
    "UPSTREAM_KEY": "the server's TLS key is not the one that the session attests",
    "RELYING_PARTY_UNKNOWN": "the peer is no relying party of this verifier: its key is not listed",
    "RESULT_AUDIENCE": "the relying party may not ask for tokens for this audience",
    "RESULT_TENANT": "a relying party asks about a tenant that it is not listed for",
    "RESULT_ABSENT": "no fresh window of the session was affirmed yet",
    "GATE_ROUTE": "no route of the gate covers the request",
    "GATE_MODEL": "the session's token is of another session, tenant, model or adapter than the gate's file names",
    "GATE_STATUS": "the session's token is authentic, but its status is not accepted at the gate",
    "LEDGER_MALFORMED": "a note, tile, entry bundle or proof that is not well-formed",
    "LEDGER_SIGNATURE": "the note is not signed by the expected key",
    "LEDGER_ORIGIN": "a checkpoint of another ledger",
    "LEDGER_PROOF": "a proof that leads to another root than the signed one: of another entry or tree, or altered",
    "LEDGER_INCONSISTENT": "the ledger, a record or stored content contradicts what was signed or promised",
    "LEDGER_LOCKED": "other processes have held the ledger for long",
    "LEDGER_FORK": "two checkpoints under one key that cannot both be true of an append-only ledger",
    "LEDGER_ROLLBACK": "a checkpoint older than one that was seen before",
    "LEDGER_WITNESS": "a witness's cosignature that is demanded and missing, does not verify, or is the ledger's own",
    "LEDGER_UNREACHABLE": "whoever serves the ledger's files does not answer as it should",
    "BUNDLE_MALFORMED": "a bundle whose entries or other members are missing, repeated, out of order or of no use",
    "BUNDLE_VERDICT": "evidence and policy do not give the recorded verdict",
    "BUNDLE_WITHHELD": "what would have to be judged is not in the bundle",
    "BUNDLE_UNCLOSED": "the session is not closed in the bundle, and that was demanded",
    "BUNDLE_FUTURE": "recorded after the time from which one looks",
    "BUNDLE_REQUEST": "a shown request is not among those that its window counts",
    "BUNDLE_TENANT": "the session is not the tenant's for whom its bundle is to be written",
    "PORT_UNAVAILABLE": "the port is taken, or cannot be listened on",
    "TPM_ABSENT": "no TPM there",
    "TPM_BUSY": "the TPM is in use, or its registers keep changing",
    "TPM_FAILED": "the TPM answered with an error",
    "GPU_ABSENT": "there is no GPU, or no driver that can be asked",
    "GPU_TIMEOUT": "a GPU or its driver did not answer in time",
    "GPU_FAILED": "a GPU or its driver answered with an error, or with what is no report or chain",
    "TELEMETRY_SOURCE": "a source of telemetry is unknown, cannot be opened, or repeats what another one reads",
    "DISK_FULL": "no space left",
    "FILE_UNREADABLE": "a file cannot be read",
    "FILE_UNWRITABLE": "a file cannot be written",
    "PEER_UNREACHABLE": "the other side cannot be reached",
    "PEER_REFUSED": "the other side refused for a reason of its own, or that cannot be read",
    "RATE_LIMITED": "more than one peer or one tenant may have, or than the verifier takes in all; it may come again",
    "CLOCK_STEPPED": "a clock stepped back",
    "TOOL_MISSING": "a program or package is not installed",
    "COMMAND_FAILED": "a program that was started failed",
    "STATE_CORRUPT": "stored state is damaged or contradicts itself",
    "STATE_LOCKED": "another process holds the state",
    "STATE_UNREACHABLE": "the database of the verifier's state does not answer, or the line to it was cut",
    "STATE_FORBIDDEN": "the database does not let the verifier in, or not write",
    "STATE_UNFIT": "the database is not set so that what it has answered outlives a loss of power",
    "STATE_FOREIGN": "the database belongs to another verifier, or to none",
    "STATE_VERSION": "another version of Weighbridge has made the state",
    "STORAGE_UNREACHABLE": "object storage does not answer, or not as it should",
    "STORAGE_FORBIDDEN": "object storage refuses these credentials, or has none",
    "STORAGE_ABSENT": "there is no such bucket of object storage",
    "STORAGE_UNFIT": "object storage that cannot write on a condition: a ledger is not safe there",
    "VERITY_UNSUPPORTED": "kernel or file system cannot enforce a file's digest",
    "KEY_EXPOSED": "others can read a private key",
}


def labels() -> str:
    """The closed list of labels, with what the source says of each."""
    found = {
        match["label"]: match["use"] for match in map(_LABEL_LINE.fullmatch, _DIGEST.read_text().splitlines()) if match
    }
    if list(found) != list(get_args(Label)):
        raise ValueError("each label stands on a line of its own with its use")
    rows = [f"| `{label}` | {use[0].upper()}{use[1:]} |" for label, use in found.items()]
    return "\n".join(["| label | use |", "|---|---|", *rows]) + "\n"


def limits_table() -> str:
    """All sizes with their values."""
    values = {name: value for name, value in vars(limits).items() if name.isupper()}
    if values.keys() != _SIZES.keys():
        raise ValueError(f"sizes without a meaning, or the reverse: {sorted(values.keys() ^ _SIZES.keys())}")
    rows = [f"| `{name}` | {value:,} | {_SIZES[name]} |" for name, value in values.items()]
    return "\n".join(["| name | value | bounds |", "|---|---:|---|", *rows]) + "\n"


def codes() -> str:
    """All codes under the headings of the enumeration."""
    if {code.value for code in Code} != _MEANINGS.keys():
        raise ValueError(f"codes without a meaning, or the reverse: {sorted({*Code} ^ _MEANINGS.keys())}")
    raised = _raised()
    lines: list[str] = []
    source = _ERRORS.read_text().partition("class Code(StrEnum):")[2].partition("\ndef ")[0]
    for match in filter(None, map(_GROUP_LINE.fullmatch, source.splitlines())):
        if match["group"]:
            lines += [
                "",
                f"**{match['group'][0].upper()}{match['group'][1:]}**",
                "",
                "| code | meaning | class |",
                "|---|---|---|",
            ]
        else:
            code = match["code"]
            lines.append(f"| `{code}` | {_MEANINGS[code]} | {_classes(raised[code])} |")
    return "\n".join(lines[1:]) + "\n"


def _classes(names: set[str]) -> str:
    words = [f"{name} {int(exit_code)}" for name, exit_code in _EXITS.items() if name in names]
    if _DENIAL in names:
        words.append("denial")
    return ", ".join(words) or "reserved"


def _raised() -> dict[str, set[str]]:
    """For each code the errors that carry it, as far as they stand in the source; rules in Rego make denials."""
    found: dict[str, set[str]] = defaultdict(set)
    for part in _PARTS:
        for path in sorted((_ROOT / part).rglob("*.py")):
            for code, name in _Uses(ast.parse(path.read_text(encoding="utf-8"))).found:
                found[code].add(name)
        for path in sorted((_ROOT / part).rglob("*.rego")):
            for code in re.findall(r'"([A-Z][A-Z0-9_]+)"', path.read_text(encoding="utf-8")):
                if code in _MEANINGS:
                    found[code].add(_DENIAL)
    return found


class _Uses:
    """Which error classes one module builds with which codes.

    A class is called with a code outright, or with a name: then with every code in the same function and, where that
    name is a parameter, with the codes that the module passes to the function; at module level, with the codes of a
    table that the function names.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.found: set[tuple[str, str]] = set()
        self._tables = {
            target.id: _codes_in(node)
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        self._functions = [node for node in ast.walk(tree) if isinstance(node, _Function)]
        for function in self._functions:
            self._look(function)

    def _look(self, function: _Function) -> None:
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name not in _EXITS and name != _DENIAL:
                continue
            given = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "code"), None)
            if given is None:
                continue
            outright = _codes_in(given)
            for code in outright or self._behind(function):
                self.found.add((code, name))

    def _behind(self, function: _Function, depth: int = 0) -> set[str]:
        """The codes that a name in ``function`` may stand for."""
        named = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        behind = _codes_in(function).union(*(self._tables.get(name, set()) for name in named))
        for caller in self._functions:
            for call in (node for node in ast.walk(caller) if isinstance(node, ast.Call)):
                called = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
                if called != function.name or caller is function:
                    continue
                given = set[str]().union(*map(_codes_in, [*call.args, *(word.value for word in call.keywords)]))
                behind |= given or (self._behind(caller, depth + 1) if depth < _DEPTH else set())
        return behind


def _codes_in(node: ast.AST) -> set[str]:
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "Code"
    }
