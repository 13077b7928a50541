"""Upper bounds that every decoder applies before anything else, each with its source.

All sizes are in bytes. A bound is part of the protocol: raising one is a change of ``docs/protocol.md``.
"""

from __future__ import annotations

from typing import Final

# gRPC: one message. 8 GPUs x (8 KiB report + 5 KiB chain) + 60 s of telemetry at 10 Hz + a manifest fit twice.
MESSAGE_MAX: Final = 4 * 1024 * 1024
# One window's CMW collection as received.
EVIDENCE_MAX: Final = 2 * 1024 * 1024
# An enrolment brings the logs of the whole boot.
PROOF_MAX: Final = 4 * 1024 * 1024 - 64 * 1024
# Header claims: about 700 bytes in practice.
HEADER_MAX: Final = 8 * 1024
TERMS_MAX: Final = 32 * 1024
# NVML returns at most 0x2000 bytes of report and 0x1400 of chain (nvml.h, nvmlConfComputeGpuAttestationReport_t).
GPU_REPORT_MAX: Final = 0x2000
GPU_CHAIN_MAX: Final = 0x4000
GPU_CHAIN_CERTS_MAX: Final = 8
GPUS_MAX: Final = 64
# Declared manifests beside the model's: adapters, draft models.
ADAPTERS_MAX: Final = 256
# Manifests in one message: all that may be declared, and as many that are not. EVIDENCE_MAX bounds them together.
MANIFESTS_MAX: Final = 512
CERT_MAX: Final = 8 * 1024
# TPM2B_ATTEST and TPM2B_PUBLIC are below 1 KiB for every type and algorithm that is accepted (TPM 2.0 Part 2 §10.12).
TPM_STRUCTURE_MAX: Final = 4 * 1024
PCRS_MAX: Final = 24
# Azure's paravisor report takes 2,600 bytes of its NV index.
VTPM_REPORT_MAX: Final = 16 * 1024
# 4,300 bytes with Intel's three certificates; hosts pad to 5,006.
TD_QUOTE_MAX: Final = 16 * 1024
# Revocation lists of the makers of CPUs are below 100 KiB, Intel's collateral for one platform below 64 KiB.
COLLATERAL_ITEM_MAX: Final = 256 * 1024
COLLATERAL_ITEMS_MAX: Final = 8
# What a verifier keeps: RIMs of 25 KB for every driver and VBIOS of its fleet, nine OCSP responses for each device.
COLLATERAL_SNAPSHOT_MAX: Final = 4096
# 2,700 bytes a device, GPUS_MAX of them.
NRAS_ANSWER_MAX: Final = 256 * 1024
OPENING_MAX: Final = 256 * 1024
TELEMETRY_MAX: Final = 1024 * 1024
# 64 GPUs x 12 channels x 60 s at 10 Hz, or 8 at 80 Hz, are 500,000 integers, most of one or two bytes, in 6,000 items.
TELEMETRY_CONTENT_MAX: Final = 2 * 1024 * 1024
TELEMETRY_VALUES_MAX: Final = 1024 * 1024
TELEMETRY_ITEMS_MAX: Final = 64 * 1024
TELEMETRY_EVENTS_MAX: Final = 4096
TELEMETRY_SOURCES_MAX: Final = 256
TELEMETRY_CHANNELS_MAX: Final = 64
TELEMETRY_SAMPLES_MAX: Final = 20_000
# An hour of 8 GPUs at 10 Hz is 7 MiB in 360 windows of 10 s; a day of one GPU 25 MiB in 8,640.
RECORDING_MAX: Final = 64 * 1024 * 1024
RECORDING_WINDOWS_MAX: Final = 10_000
RECORDING_ITEMS_MAX: Final = 16 * RECORDING_WINDOWS_MAX
LOG_RECORD_MAX: Final = 64 * 1024
LOG_RECORDS_MAX: Final = 4096
# Logs of firmware are below 1 MiB; a kernel that measures every file it reads writes 100 to 200 bytes each.
EVENT_LOG_MAX: Final = 32 * 1024 * 1024
EVENT_LOG_EVENTS_MAX: Final = 200_000
# Of those in one message: a boot's logs are 15 to 75 KiB; EVIDENCE_MAX bounds them together.
BOOT_LOG_MAX: Final = 1024 * 1024
# What is new of the kernel's list: 10,000 entries or so. A longer list comes in several messages.
RUNTIME_LOG_MAX: Final = 1536 * 1024
# A manifest's head: 100 bytes a file.
MANIFEST_MAX: Final = 1024 * 1024
MANIFEST_FILES_MAX: Final = 20_000
# Tensors and what lies between them. The largest open models have 100,000 (DeepSeek-V3: 91,991 in 163 files).
MANIFEST_PARTS_MAX: Final = 400_000
# Head and all tables, as kept on disk: 150 bytes a tensor. JSON takes about twice as much.
MANIFEST_PACKED_MAX: Final = 64 * 1024 * 1024
MANIFEST_JSON_MAX: Final = 160 * 1024 * 1024
# What of all tables travels with a window or a proof, to name tensors that differ.
MANIFEST_TABLES_MAX: Final = 512 * 1024
# A spot check: 16 ranges of 64 KiB are 1 MiB, read in some milliseconds; a challenge of 64 ranges is about 5 KiB.
SPOT_RANGES_MAX: Final = 64
SPOT_BYTES_MAX: Final = 4 * 1024 * 1024
SPOT_CHALLENGE_MAX: Final = 32 * 1024
# A week of one every minute. As JSON a challenge of 16 ranges is about 1.5 KiB.
SPOT_POOL_CHALLENGES_MAX: Final = 10_080
SPOT_POOL_MAX: Final = 64 * 1024 * 1024
# An OpenSSF model signature: a statement of at most JSON_MAX bytes in base64, and certificates.
MODEL_SIGNATURE_MAX: Final = 24 * 1024 * 1024
# 170 bytes each: files, or shards of 64 MiB of a model of 5 TiB.
MODEL_SIGNATURE_RESOURCES_MAX: Final = 80_000
MODEL_SIGNATURE_CERTS_MAX: Final = 8
# A reference set: 100 bytes a model and 1 to 20 KiB a statement.
REFERENCE_SET_MAX: Final = 1024 * 1024
REFERENCE_SET_MODELS_MAX: Final = 4096
REFERENCE_SET_REVOKED_MAX: Final = 8192
STATEMENT_MAX: Final = 256 * 1024
STATEMENTS_MAX: Final = 64
# A host set: 80 bytes a file. A server's image has 3,000 to 30,000 files that are ever run or read as root.
HOST_SET_MAX: Final = 8 * 1024 * 1024
HOST_SET_FILES_MAX: Final = 100_000
HOST_SET_VALUES_MAX: Final = 256
HOST_SET_FIRMWARE_MAX: Final = 64
# A profile of 12 runs is about 11 KiB; a set is for the GPUs of some hosts.
PROFILE_MAX: Final = 256 * 1024
PROFILE_RUNS_MAX: Final = 256
PROFILE_RUN_UNITS_MAX: Final = 4096
PROFILE_DEVIATIONS_MAX: Final = 32
BASELINE_SET_MAX: Final = 4 * 1024 * 1024
BASELINE_SET_PROFILES_MAX: Final = 256
# A signed policy: the shipped ones are 2 to 5 KiB, an author's own data up to 1 MiB.
POLICY_BUNDLE_MAX: Final = 4 * 1024 * 1024
POLICY_BUNDLE_FILES_MAX: Final = 64
# All files of one policy, the library's among them: less than CONTENT_MAX, under which they are kept.
POLICY_MAX: Final = 8 * 1024 * 1024
# The values in force: 67 bytes a file as JSON, so two of the largest host sets fit. Not more than JSON_MAX.
REFERENCE_MAX: Final = 16 * 1024 * 1024
# One item of the content store: a message, or the values in force with what names them.
CONTENT_MAX: Final = REFERENCE_MAX + 1024
NAME_MAX: Final = 512
# C2SP tlog-tiles: an entry has a 16-bit length.
LEDGER_ENTRY_MAX: Final = 65_535
CHECKPOINT_MAX: Final = 64 * 1024
# RFC 9942: 63 hashes, a name twice, a signature.
LEDGER_RECEIPT_MAX: Final = 4096
# An hour of 8 GPUs is 30 MiB unpacked and 3 MiB packed; some hours fit. That much memory is taken to open one.
BUNDLE_MAX: Final = 256 * 1024 * 1024
BUNDLE_CONTENT_MAX: Final = 256 * 1024 * 1024
# Requests that one bundle shows: each is 1.5 KiB at most.
BUNDLE_REQUESTS_MAX: Final = 10_000
JSON_MAX: Final = 16 * 1024 * 1024
JSON_DEPTH_MAX: Final = 32
CBOR_DEPTH_MAX: Final = 12
TOKEN_MAX: Final = 64 * 1024
TOKEN_KEY_MAX: Final = 1024
JWKS_MAX: Final = 256 * 1024
# RFC 9711 §4.1: eat_nonce is 8 to 64 bytes; ours are exactly this.
NONCE_SIZE: Final = 32
DIGEST_SIZE: Final = 32
