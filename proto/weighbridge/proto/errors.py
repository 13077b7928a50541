"""The error tree, its stable codes, and the exit codes that follow from them.

::

    WeighbridgeError
    ├── MalformedEvidence   bytes that are not what they claim to be               exit 3
    ├── NotAuthentic        well-formed, but a signature, chain or binding fails    exit 4
    ├── PolicyDenied        authentic, but not what the policy allows               exit 5
    ├── Indeterminate       something needed to decide is absent                    exit 6
    ├── LedgerInconsistent  the ledger contradicts itself or what was promised      exit 7
    └── EnvironmentFault    this machine: TPM, disk, port, peer; safe to retry      exit 8

Misuse of the API is ``TypeError``, ``ValueError`` or ``RuntimeError`` and is never caught. Codes are wire
format: tests, metrics, vectors and the ledger use the code, people read the text.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import ClassVar, Final, final

__all__ = [
    "Code",
    "EnvironmentFault",
    "ExitCode",
    "Indeterminate",
    "LedgerInconsistent",
    "MalformedEvidence",
    "NotAuthentic",
    "PolicyDenied",
    "WeighbridgeError",
    "shorten",
]


class ExitCode(IntEnum):
    """Exit status of every command, STYLE: never 0 on failure."""

    AFFIRMED = 0
    INTERNAL = 1
    USAGE = 2
    MALFORMED = 3
    NOT_AUTHENTIC = 4
    DENIED = 5
    INDETERMINATE = 6
    LEDGER_INCONSISTENT = 7
    ENVIRONMENT = 8


class Code(StrEnum):
    """Every reason for which something is refused. Names are stable; a code is never reused."""

    # decoding
    TOO_LARGE = "TOO_LARGE"
    TOO_DEEP = "TOO_DEEP"
    TRUNCATED = "TRUNCATED"
    TRAILING_BYTES = "TRAILING_BYTES"
    NOT_CBOR = "NOT_CBOR"
    NOT_DETERMINISTIC = "NOT_DETERMINISTIC"
    NOT_JSON = "NOT_JSON"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    NOT_HEX = "NOT_HEX"
    NOT_BASE64 = "NOT_BASE64"
    NOT_A_NUMBER = "NOT_A_NUMBER"
    NOT_A_TIME = "NOT_A_TIME"
    NOT_UTF8 = "NOT_UTF8"
    NOT_ZSTD = "NOT_ZSTD"
    NOT_TOML = "NOT_TOML"
    FIELD_MISSING = "FIELD_MISSING"
    FIELD_UNKNOWN = "FIELD_UNKNOWN"
    FIELD_TYPE = "FIELD_TYPE"
    FIELD_RANGE = "FIELD_RANGE"
    VERSION_UNSUPPORTED = "VERSION_UNSUPPORTED"

    # COSE and keys
    COSE_HEADER = "COSE_HEADER"
    COSE_SIGNATURE = "COSE_SIGNATURE"
    KEY_MALFORMED = "KEY_MALFORMED"
    KEY_UNSUPPORTED = "KEY_UNSUPPORTED"

    # X.509 and trust anchors
    CERT_MALFORMED = "CERT_MALFORMED"
    CHAIN_BROKEN = "CHAIN_BROKEN"
    CHAIN_UNTRUSTED = "CHAIN_UNTRUSTED"
    CHAIN_EXPIRED = "CHAIN_EXPIRED"
    CHAIN_LENGTH = "CHAIN_LENGTH"
    ANCHORS_INVALID = "ANCHORS_INVALID"

    # TPM
    TPM_STRUCTURE = "TPM_STRUCTURE"
    TPM_MAGIC = "TPM_MAGIC"
    TPM_ATTEST_TYPE = "TPM_ATTEST_TYPE"
    TPM_NONCE = "TPM_NONCE"
    TPM_SIGNATURE = "TPM_SIGNATURE"
    TPM_ALGORITHM = "TPM_ALGORITHM"
    TPM_PCR_SELECTION = "TPM_PCR_SELECTION"
    TPM_PCR_VALUES = "TPM_PCR_VALUES"
    TPM_RESET = "TPM_RESET"
    TPM_CLOCK = "TPM_CLOCK"
    TPM_FIRMWARE = "TPM_FIRMWARE"
    EK_CERT_MISMATCH = "EK_CERT_MISMATCH"
    EK_TEMPLATE = "EK_TEMPLATE"
    AK_ATTRIBUTES = "AK_ATTRIBUTES"
    AK_UNPROVEN = "AK_UNPROVEN"
    TELEMETRY_KEY_MISMATCH = "TELEMETRY_KEY_MISMATCH"
    TELEMETRY_KEY_HIERARCHY = "TELEMETRY_KEY_HIERARCHY"
    TELEMETRY_KEY_ATTRIBUTES = "TELEMETRY_KEY_ATTRIBUTES"
    TELEMETRY_KEY_POLICY = "TELEMETRY_KEY_POLICY"
    AK_CERT_MISMATCH = "AK_CERT_MISMATCH"

    # what hardware says of a confidential VM and of its TPM
    SNP_REPORT = "SNP_REPORT"
    SNP_SIG = "SNP_SIG"
    SNP_TCB = "SNP_TCB"
    SNP_CHIP = "SNP_CHIP"
    SNP_POLICY = "SNP_POLICY"
    SNP_VMPL = "SNP_VMPL"
    TDX_QUOTE = "TDX_QUOTE"
    TDX_SIG = "TDX_SIG"
    TDX_DEBUG = "TDX_DEBUG"
    TDX_ATTRIBUTES = "TDX_ATTRIBUTES"
    TDX_TCB = "TDX_TCB"
    TDX_COLLATERAL = "TDX_COLLATERAL"
    HCL_REPORT = "HCL_REPORT"
    HCL_BINDING = "HCL_BINDING"
    CERT_REVOKED = "CERT_REVOKED"
    CRL_INVALID = "CRL_INVALID"

    # what booted, and what ran
    BOOT_LOG = "BOOT_LOG"
    BOOT_MISMATCH = "BOOT_MISMATCH"
    RUNTIME_LOG = "RUNTIME_LOG"
    RUNTIME_VIOLATION = "RUNTIME_VIOLATION"

    # GPU
    GPU_REPORT_MALFORMED = "GPU_REPORT_MALFORMED"
    GPU_CHAIN = "GPU_CHAIN"
    GPU_SIG = "GPU_SIG"
    GPU_NONCE = "GPU_NONCE"
    GPU_FWID = "GPU_FWID"
    GPU_ARCH = "GPU_ARCH"
    GPU_MISSING = "GPU_MISSING"
    GPU_DUPLICATE = "GPU_DUPLICATE"
    GPU_UNEXPECTED = "GPU_UNEXPECTED"
    GPU_REFERENCE_ABSENT = "GPU_REFERENCE_ABSENT"
    GPU_MEASUREMENT_MISMATCH = "GPU_MEASUREMENT_MISMATCH"
    GPU_REVOCATION_UNKNOWN = "GPU_REVOCATION_UNKNOWN"
    GPU_REVOKED = "GPU_REVOKED"
    GPU_CC_MODE = "GPU_CC_MODE"

    GPU_TOPOLOGY = "GPU_TOPOLOGY"
    GPU_UNCOVERED = "GPU_UNCOVERED"
    GPU_MODE = "GPU_MODE"
    GPU_OUTDATED = "GPU_OUTDATED"
    RIM_MALFORMED = "RIM_MALFORMED"
    RIM_SIG = "RIM_SIG"
    RIM_CHAIN = "RIM_CHAIN"
    RIM_EXPIRED = "RIM_EXPIRED"
    RIM_VERSION = "RIM_VERSION"
    RIM_ABSENT = "RIM_ABSENT"
    RIM_CONFLICT = "RIM_CONFLICT"
    OCSP_INVALID = "OCSP_INVALID"

    # NVIDIA's own attestation service, as an extra witness
    NRAS_MALFORMED = "NRAS_MALFORMED"
    NRAS_ALG = "NRAS_ALG"
    NRAS_SIG = "NRAS_SIG"
    NRAS_ISSUER = "NRAS_ISSUER"
    NRAS_NONCE = "NRAS_NONCE"
    NRAS_SUBMODS = "NRAS_SUBMODS"
    NRAS_TIME = "NRAS_TIME"
    NRAS_AUDIENCE = "NRAS_AUDIENCE"
    NRAS_KEY_ABSENT = "NRAS_KEY_ABSENT"
    NRAS_CONTRADICTS = "NRAS_CONTRADICTS"

    # collateral
    COLLATERAL_INVALID = "COLLATERAL_INVALID"
    COLLATERAL_FETCH = "COLLATERAL_FETCH"

    # challenges and freshness
    NONCE_LENGTH = "NONCE_LENGTH"
    NONCE_DENIED = "NONCE_DENIED"
    CHALLENGE_UNKNOWN = "CHALLENGE_UNKNOWN"
    WINDOW_HELD = "WINDOW_HELD"

    # window and chain
    WINDOW_PROFILE = "WINDOW_PROFILE"
    WINDOW_TENANT = "WINDOW_TENANT"
    WINDOW_SESSION = "WINDOW_SESSION"
    WINDOW_AUDIENCE = "WINDOW_AUDIENCE"
    WINDOW_TERMS = "WINDOW_TERMS"
    WINDOW_SEQ = "WINDOW_SEQ"
    WINDOW_PREV = "WINDOW_PREV"
    WINDOW_DUPLICATE = "WINDOW_DUPLICATE"
    WINDOW_FORK = "WINDOW_FORK"
    WINDOW_INTERVAL = "WINDOW_INTERVAL"
    WINDOW_PEER = "WINDOW_PEER"
    WINDOW_CNF = "WINDOW_CNF"
    EVIDENCE_ABSENT = "EVIDENCE_ABSENT"
    EVIDENCE_UNEXPECTED = "EVIDENCE_UNEXPECTED"
    TELEMETRY_DIGEST = "TELEMETRY_DIGEST"
    TELEMETRY_SESSION = "TELEMETRY_SESSION"
    TELEMETRY_DEVICE = "TELEMETRY_DEVICE"
    TELEMETRY_TIME = "TELEMETRY_TIME"
    TELEMETRY_NO_BASELINE = "TELEMETRY_NO_BASELINE"
    TELEMETRY_OUT_OF_BASELINE = "TELEMETRY_OUT_OF_BASELINE"
    TELEMETRY_IMPLAUSIBLE = "TELEMETRY_IMPLAUSIBLE"
    TELEMETRY_UNUSABLE = "TELEMETRY_UNUSABLE"
    TELEMETRY_UNREPORTED = "TELEMETRY_UNREPORTED"
    WORKLOAD_COUNTS = "WORKLOAD_COUNTS"
    WORKLOAD_DIFFERS = "WORKLOAD_DIFFERS"

    # measurement log and weights
    LOG_GAP = "LOG_GAP"
    LOG_HEAD = "LOG_HEAD"
    LOG_REPLAY = "LOG_REPLAY"
    LOG_DIGEST = "LOG_DIGEST"
    LOG_EVENT = "LOG_EVENT"
    LOG_SHA1_ONLY = "LOG_SHA1_ONLY"
    LOG_VIOLATION = "LOG_VIOLATION"
    BASELINE_UNEXPLAINED = "BASELINE_UNEXPLAINED"
    MANIFEST_DIGEST = "MANIFEST_DIGEST"
    MANIFEST_MISSING = "MANIFEST_MISSING"
    WEIGHTS_MISMATCH = "WEIGHTS_MISMATCH"
    MODEL_UNDECLARED = "MODEL_UNDECLARED"
    MODEL_NOT_LOADED = "MODEL_NOT_LOADED"
    WEIGHTS_UNREADABLE = "WEIGHTS_UNREADABLE"
    WEIGHTS_CHANGED = "WEIGHTS_CHANGED"
    WEIGHTS_AMBIGUOUS = "WEIGHTS_AMBIGUOUS"
    LOAD_MISMATCH = "LOAD_MISMATCH"
    LOAD_UNGUARDED = "LOAD_UNGUARDED"

    # OpenSSF model signatures
    MODEL_SIGNATURE = "MODEL_SIGNATURE"
    MODEL_SIGNATURE_MODE = "MODEL_SIGNATURE_MODE"
    MODEL_SIGNER = "MODEL_SIGNER"
    MODEL_FILE_MISSING = "MODEL_FILE_MISSING"
    MODEL_FILE_UNSIGNED = "MODEL_FILE_UNSIGNED"
    MODEL_FILE_DIFFERS = "MODEL_FILE_DIFFERS"
    CERT_PURPOSE = "CERT_PURPOSE"
    SPOT_ABSENT = "SPOT_ABSENT"
    SPOT_WRONG = "SPOT_WRONG"
    SPOT_POOL_EMPTY = "SPOT_POOL_EMPTY"

    # reference sets and statements about models
    MODEL_REVOKED = "MODEL_REVOKED"
    MODEL_EXPIRED = "MODEL_EXPIRED"
    HOST_SET_EXPIRED = "HOST_SET_EXPIRED"
    REFERENCE_ROLLBACK = "REFERENCE_ROLLBACK"
    BASELINE_DRIFT = "BASELINE_DRIFT"
    BASELINE_RUNS = "BASELINE_RUNS"
    BASELINE_SCOPE = "BASELINE_SCOPE"
    BASELINE_CONFLICT = "BASELINE_CONFLICT"
    RECORDING_DENIED = "RECORDING_DENIED"
    RECORDING_EMPTY = "RECORDING_EMPTY"
    STATEMENT_UNTRUSTED = "STATEMENT_UNTRUSTED"
    STATEMENT_SUBJECT = "STATEMENT_SUBJECT"

    # session
    SESSION_UNKNOWN = "SESSION_UNKNOWN"
    SESSION_STATE = "SESSION_STATE"
    SESSION_FAILED = "SESSION_FAILED"
    SUBJECT_FAILED = "SUBJECT_FAILED"
    PEER_ROLE = "PEER_ROLE"

    # policy
    POLICY_INVALID = "POLICY_INVALID"
    POLICY_DENIED = "POLICY_DENIED"
    POLICY_UNDEFINED = "POLICY_UNDEFINED"
    POLICY_ERROR = "POLICY_ERROR"
    POLICY_TIMEOUT = "POLICY_TIMEOUT"
    POLICY_CRASHED = "POLICY_CRASHED"
    POLICY_DISAGREE = "POLICY_DISAGREE"
    POLICY_FOREIGN = "POLICY_FOREIGN"
    POLICY_OUTPUT = "POLICY_OUTPUT"
    POLICY_ROLLBACK = "POLICY_ROLLBACK"
    POLICY_TENANT = "POLICY_TENANT"
    POLICY_EXPIRED = "POLICY_EXPIRED"
    POLICY_ABSENT = "POLICY_ABSENT"
    PLATFORM_EMULATED = "PLATFORM_EMULATED"
    PLATFORM_WEAK = "PLATFORM_WEAK"
    PLATFORM_CLASS = "PLATFORM_CLASS"
    HOST_STATE_HELD = "HOST_STATE_HELD"
    HOST_TRUSTED = "HOST_TRUSTED"
    AUDIT_ONLY = "AUDIT_ONLY"
    REFERENCE_ABSENT = "REFERENCE_ABSENT"
    UNPROVEN = "UNPROVEN"

    # results, ledger, bundle
    TOKEN_MALFORMED = "TOKEN_MALFORMED"  # noqa: S105 - a code, not a secret
    TOKEN_SIGNATURE = "TOKEN_SIGNATURE"  # noqa: S105 - a code, not a secret
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - a code, not a secret
    TOKEN_NOT_YET_VALID = "TOKEN_NOT_YET_VALID"  # noqa: S105 - a code, not a secret
    TOKEN_AUDIENCE = "TOKEN_AUDIENCE"  # noqa: S105 - a code, not a secret
    TOKEN_KEY_PERIOD = "TOKEN_KEY_PERIOD"  # noqa: S105 - a code, not a secret
    TOKEN_KEY_ENDORSEMENT = "TOKEN_KEY_ENDORSEMENT"  # noqa: S105 - a code, not a secret
    UPSTREAM_KEY = "UPSTREAM_KEY"
    RELYING_PARTY_UNKNOWN = "RELYING_PARTY_UNKNOWN"
    RESULT_AUDIENCE = "RESULT_AUDIENCE"
    RESULT_TENANT = "RESULT_TENANT"
    RESULT_ABSENT = "RESULT_ABSENT"
    GATE_ROUTE = "GATE_ROUTE"
    GATE_MODEL = "GATE_MODEL"
    GATE_STATUS = "GATE_STATUS"
    LEDGER_MALFORMED = "LEDGER_MALFORMED"
    LEDGER_SIGNATURE = "LEDGER_SIGNATURE"
    LEDGER_ORIGIN = "LEDGER_ORIGIN"
    LEDGER_PROOF = "LEDGER_PROOF"
    LEDGER_INCONSISTENT = "LEDGER_INCONSISTENT"
    LEDGER_LOCKED = "LEDGER_LOCKED"
    LEDGER_FORK = "LEDGER_FORK"
    LEDGER_ROLLBACK = "LEDGER_ROLLBACK"
    LEDGER_WITNESS = "LEDGER_WITNESS"
    LEDGER_UNREACHABLE = "LEDGER_UNREACHABLE"
    BUNDLE_MALFORMED = "BUNDLE_MALFORMED"
    BUNDLE_VERDICT = "BUNDLE_VERDICT"
    BUNDLE_WITHHELD = "BUNDLE_WITHHELD"
    BUNDLE_UNCLOSED = "BUNDLE_UNCLOSED"
    BUNDLE_FUTURE = "BUNDLE_FUTURE"
    BUNDLE_REQUEST = "BUNDLE_REQUEST"
    BUNDLE_TENANT = "BUNDLE_TENANT"

    # this machine
    PORT_UNAVAILABLE = "PORT_UNAVAILABLE"
    TPM_ABSENT = "TPM_ABSENT"
    TPM_BUSY = "TPM_BUSY"
    TPM_FAILED = "TPM_FAILED"
    GPU_ABSENT = "GPU_ABSENT"
    GPU_TIMEOUT = "GPU_TIMEOUT"
    GPU_FAILED = "GPU_FAILED"
    TELEMETRY_SOURCE = "TELEMETRY_SOURCE"
    DISK_FULL = "DISK_FULL"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    FILE_UNWRITABLE = "FILE_UNWRITABLE"
    PEER_UNREACHABLE = "PEER_UNREACHABLE"
    PEER_REFUSED = "PEER_REFUSED"
    RATE_LIMITED = "RATE_LIMITED"
    CLOCK_STEPPED = "CLOCK_STEPPED"
    TOOL_MISSING = "TOOL_MISSING"
    COMMAND_FAILED = "COMMAND_FAILED"
    STATE_CORRUPT = "STATE_CORRUPT"
    STATE_LOCKED = "STATE_LOCKED"
    STATE_UNREACHABLE = "STATE_UNREACHABLE"
    STATE_FORBIDDEN = "STATE_FORBIDDEN"
    STATE_UNFIT = "STATE_UNFIT"
    STATE_FOREIGN = "STATE_FOREIGN"
    STATE_VERSION = "STATE_VERSION"
    STORAGE_UNREACHABLE = "STORAGE_UNREACHABLE"
    STORAGE_FORBIDDEN = "STORAGE_FORBIDDEN"
    STORAGE_ABSENT = "STORAGE_ABSENT"
    STORAGE_UNFIT = "STORAGE_UNFIT"
    VERITY_UNSUPPORTED = "VERITY_UNSUPPORTED"
    KEY_EXPOSED = "KEY_EXPOSED"


def shorten(value: object, limit: int = 80) -> str:
    """Render ``value`` for a message: bytes as lower-case hex, anything long cut with its length kept visible."""
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= limit else f"{text[: limit - 12]}… ({len(text)} chars)"


# What to do about a fault of this machine when whoever found it knows nothing better.
_HINTS: Final = {
    Code.PORT_UNAVAILABLE: "choose another port, or stop the program that has it",
    Code.TPM_ABSENT: "is it switched on in the firmware, or its emulator running?",
    Code.TPM_BUSY: "stop the other program that uses the TPM, then try again",
    Code.TPM_FAILED: "restart the machine or the emulator; tpm2_rc_decode explains codes",
    Code.GPU_ABSENT: "is the driver loaded, may this user open /dev/nvidia*? `weighbridge-attester doctor` says more",
    Code.GPU_TIMEOUT: "look for NVRM in the kernel's log, then start again; restart the host if it stays",
    Code.GPU_FAILED: "`weighbridge-attester doctor` says more; look for NVRM in the kernel's log",
    Code.TELEMETRY_SOURCE: "`weighbridge-attester telemetry list` shows what can be opened here",
    Code.DISK_FULL: "free space on this file system, then try again: nothing was lost",
    Code.FILE_UNREADABLE: "does it exist, and may this user read it?",
    Code.FILE_UNWRITABLE: "does its directory exist, and may this user write there?",
    Code.PEER_UNREACHABLE: "is it running, and can it be reached from here?",
    Code.PEER_REFUSED: "ask who operates it: its own log says more",
    Code.RATE_LIMITED: "wait, as long as it says, and send it again: nothing was lost",
    Code.CLOCK_STEPPED: "check the time service of this machine",
    Code.TOOL_MISSING: "install it, or put its directory on the PATH",
    Code.COMMAND_FAILED: "its own output says more",
    Code.STATE_CORRUPT: "check the disk, and keep what is there to be examined",
    Code.STATE_LOCKED: "stop the other process, then try again",
    Code.STATE_UNREACHABLE: "is the database running, and can it be reached from here? windows wait, none is lost",
    Code.STATE_FORBIDDEN: "may this role connect, and read and write these tables? is this the primary?",
    Code.STATE_UNFIT: "docs/store.md says how the database has to be set",
    Code.STATE_FOREIGN: "name this verifier's own database, or give each a schema of its own",
    Code.STATE_VERSION: "weighbridge store migrate STATE",
    Code.STORAGE_UNREACHABLE: "is it running, and are AWS_ENDPOINT_URL, AWS_REGION and credentials set as it needs?",
    Code.STORAGE_FORBIDDEN: "may these credentials read, write, list and delete below this prefix?",
    Code.STORAGE_ABSENT: "make the bucket first, or correct its name",
    Code.STORAGE_UNFIT: "take a service that writes on conditions (If-Match and If-None-Match), as S3 itself does",
    Code.LEDGER_LOCKED: "try again; if it stays, a process hangs that has the ledger: stop that one",
    Code.LEDGER_UNREACHABLE: "try again later: nothing that was seen before is forgotten",
    Code.KEY_EXPOSED: "make new keys: these may have been copied",
    Code.VERITY_UNSUPPORTED: "ext4 needs `tune2fs -O verity`; else put the model on a device with dm-verity",
    Code.WEIGHTS_UNREADABLE: "is it the model's directory, and may this user read all of it?",
}


def _printable(text: str) -> str:
    """``text`` on one line, and without what would steer a terminal: parts of it come from whoever is refused."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


class WeighbridgeError(Exception):
    """A refusal. Carries what a machine needs (``code``) and what a person needs (everything else).

    Args:
        code: the stable reason.
        message: lower case, no full stop: what was expected, what came.
        where: the place, such as ``quote.signature[0..96]`` or a path.
        expected: what should have been there; bytes are shown as hex, shortened.
        got: what was there.
        clause: the clause of a specification that demands it.
        hint: a separate sentence on what to do; a fault of this machine has one always.

    Line breaks and other characters that cannot be printed are shown escaped in all of them.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        where: str = "",
        expected: object = None,
        got: object = None,
        clause: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(code, message)
        self.code: Code = code
        self.message: str = _printable(message)
        self.where: str = _printable(where)
        self.expected: str | None = None if expected is None else _printable(shorten(expected))
        self.got: str | None = None if got is None else _printable(shorten(got))
        self.clause: str = _printable(clause)
        self.hint: str = _printable(hint or _HINTS.get(code, ""))

    def __str__(self) -> str:
        """One line for people; the code comes first so that a line can be searched for."""
        parts = [f"{self.code.value}: {self.message}"]
        if self.where:
            parts.append(f"at {self.where}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.clause:
            parts.append(f"[{self.clause}]")
        return ", ".join(parts)

    def document(self) -> dict[str, str | None]:
        """The refusal as a JSON-ready object with every field present."""
        return {
            "code": self.code.value,
            "message": self.message,
            "where": self.where or None,
            "expected": self.expected,
            "got": self.got,
            "clause": self.clause or None,
            "hint": self.hint or None,
        }


@final
class MalformedEvidence(WeighbridgeError):
    """The bytes are not a well-formed instance of what they are presented as."""

    exit_code = ExitCode.MALFORMED

    def in_file(self, path: object, *, what: str, hint: str) -> MalformedEvidence:
        """The same refusal of the file ``path``, which was taken for ``what``; ``hint`` says where one is to be had."""
        file = _printable(str(path))
        is_named = self.where == file or self.where.startswith((f"{file}:", f"{file}."))
        return MalformedEvidence(
            self.code,
            f"not {what}: {self.message}",
            where=self.where if is_named else f"{file}: {self.where}",
            expected=self.expected,
            got=self.got,
            clause=self.clause,
            hint=self.hint or hint,
        )


@final
class NotAuthentic(WeighbridgeError):
    """Well-formed, but a signature, certificate chain, nonce or binding does not hold."""

    exit_code = ExitCode.NOT_AUTHENTIC


@final
class PolicyDenied(WeighbridgeError):
    """Authentic, but not what the terms, the invariants or the policy allow."""

    exit_code = ExitCode.DENIED


@final
class Indeterminate(WeighbridgeError):
    """Something needed to decide is absent. Never an admission."""

    exit_code = ExitCode.INDETERMINATE


@final
class LedgerInconsistent(WeighbridgeError):
    """The ledger, a checkpoint or a proof contradicts itself or an earlier promise."""

    exit_code = ExitCode.LEDGER_INCONSISTENT


class EnvironmentFault(WeighbridgeError):
    """This machine is at fault: TPM, disk, port, clock or peer. Nothing was lost; it is safe to retry.

    Where it is known when to retry, a class of its own says so.
    """

    exit_code = ExitCode.ENVIRONMENT
