# The library of every Weighbridge policy, by subject: this module has what the others are built of.
#
# Conventions, so that a missing or strange field ends in a denial and never in silence:
# a check is a *positive* rule, true only when everything is there and right, and the denial is its `not`;
# what a denial says about the input goes through `field`, which has a value whatever the input holds.
#
# One module, on purpose: of a package in several, regorus loses rules when it is asked for the package as a whole, and
# `lib.always` asks for that. It also evaluates every rule then, needed or not; of a rule that is imported by itself, as
# the shipped policies do it, it evaluates that alone.
package weighbridge.lib

import rego.v1

# ---------- the document

# The name of the input's form.
schema := "weighbridge/policy-input/v1"

# The member of an object, or null; of what is none, null.
field(object_, name) := object.get(object_, name, null) if {
	is_object(object_)
} else := null

# Anything as text; null stays null.
shown(value) := value if {
	is_string(value)
} else := null if {
	is_null(value)
} else := json.marshal(value)

# One denial: a code in capitals, the device that it is about, what was to be seen and what was, and what to do.
# `device`, `expected`, `got` and `hint` may be null; what is no text is shown as JSON.
denial(code, device, message, expected, got, hint) := {
	"code": code,
	"window": object.get(input, ["window", "seq"], null),
	"device": shown(device),
	"message": message,
	"expected": shown(expected),
	"got": shown(got),
	"hint": hint,
}

# The same denial, saying that it speaks of something else than the host: the session ends, and the host may come again
# at once. Without it a denial sticks to the host until the verifier's operator clears it.
passing(denial_) := object.union(denial_, {"sticks": false})

# The input is of the form that these rules were written for.
schema_known if input.schema == schema

# What every policy denies. Each says so with: deny contains d if some d in lib.always
always contains d if {
	not schema_known
	d := denial("VERSION_UNSUPPORTED", null, "the input document has another schema", schema, field(input, "schema"), null)
}

# Every list is there. One that is not would satisfy every rule about its elements.
lists_present if {
	is_array(input.gpus)
	is_array(input.weights.declared)
	is_array(input.weights.loaded)
	is_array(input.weights.differences)
	is_array(input.telemetry.sources)
	is_array(input.telemetry.devices)
	is_array(input.telemetry.unreported)
	is_array(input.platform.differences)
	is_array(input.findings)
}

always contains d if {
	not lists_present
	d := denial("POLICY_ERROR", null, "the input document lacks a list", null, null, null)
}

# What verification noticed, as warnings: it refuses nothing by itself.
remarks contains w if {
	some finding in object.get(input, "findings", [])
	is_object(finding)
	w := {"code": field(finding, "code"), "message": field(finding, "message")}
}

# ---------- Freshness: whether the window was sealed under the challenge of the moment, and whether others are missing before it.

# The window answers the challenge that was given for it. What arrives late is `held`: kept, and never admitted.
fresh if input.window.freshness == "fresh"

always contains d if {
	not fresh
	freshness := object.get(input, ["window", "freshness"], null)
	d := denial("WINDOW_HELD", null, "the window arrived under an old challenge", "fresh", freshness, "held windows are kept and never admitted")
}

# No window was held back since the last fresh one.
no_gap if input.gap.held_windows == 0

remarks contains w if {
	held := input.gap.held_windows
	held > 0
	w := {"code": "WINDOW_HELD", "message": sprintf("%v windows were held back before this one", [held])}
}

# The window covers no more than so many seconds of the host's time.
window_within(seconds) if {
	input.window.interval_ns >= 0
	input.window.interval_ns <= seconds * 1000000000
}

# It was received in this span of time; both ends as RFC 3339, such as "2026-11-22T00:00:00Z".
received_between(from, until) if {
	time.now_ns() >= time.parse_rfc3339_ns(from)
	time.now_ns() <= time.parse_rfc3339_ns(until)
}

# ---------- The platform: which kind of machine the TPM stands in, who could lie for it, what it booted and ran.

default platform_class := "unknown"

# The kind of machine in one word: "azure_snp", "azure_tdx", "bare_metal_tpm", "google_vtpm", "pinned_tpm" (its operator
# says that the key is a TPM's), "emulated", or "unknown".
platform_class := "azure_snp" if {
	input.platform.kind == "tpm-vtpm-report"
	input.platform.name == "amd-sev-snp"
	input.platform.tee.kind == "sev-snp"
}

platform_class := "azure_tdx" if {
	input.platform.kind == "tpm-vtpm-report"
	input.platform.name == "intel-tdx"
	input.platform.tee.kind == "tdx"
}

platform_class := "bare_metal_tpm" if {
	input.platform.kind == "tpm-ek-credential"
	input.platform.name == "tpm"
}

platform_class := "google_vtpm" if input.platform.name == "google-vtpm"

platform_class := "pinned_tpm" if {
	input.platform.kind == "tpm-pinned-ak"
	input.platform.name == "tpm"
}

platform_class := "emulated" if input.platform.name == "insecure-emulated"

# The platform is none that is made of software.
genuine_platform if input.platform.name in {"tpm", "google-vtpm", "amd-sev-snp", "intel-tdx"}

# Whoever runs the host has to be trusted: nothing shows that the TPM is the guest's own. An EK certificate, a cloud's
# word or a pinned key proves a TPM, and not the guest beside the GPU.
host_trusted if not host_bound

# Hardware says that the TPM is the guest's own, and the code that runs it is among the reference values.
host_bound if input.platform.host_binding == "proven"

# Whoever holds the TPM's state could copy it back; a TPM of its own, or the guest's firmware, does not let the host.
state_not_held_by_host if input.platform.state_held_by in {"tpm", "guest", "unknown"}

# The generations of SEV-SNP processors that no published attack takes the keys of; Milan's were taken (BadFuse).
sound_products := {"Genoa", "Turin"}

# Intel's words for a TCB in which no published fix is missing.
current := {"UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"}

# Nothing of a confidential machine to judge, or nothing known against its generation and state.
tee_not_broken if input.platform.tee.kind == "none"

tee_not_broken if {
	input.platform.tee.kind == "sev-snp"
	input.platform.tee.product in sound_products
	input.platform.tee.tcb_status == "matches"
	input.platform.tee.alias_check in {"complete", "unknown"}
}

tee_not_broken if {
	input.platform.tee.kind == "tdx"
	input.platform.tee.tcb_status in current
}

# The value of a boot register (PCR) of the SHA-256 bank as quoted, hex; null where it is not quoted exactly once.
pcr(index) := value if {
	values := [item.sha256 | some item in object.get(input, ["platform", "boot_pcrs"], []); item.index == index]
	count(values) == 1
	some value in values
} else := null

# The register holds one of these values: a set or list of hex.
pcr_is(index, values) if {
	value := pcr(index)
	is_string(value)
	value in values
}

# What booted does not contradict what the host's owner accepts. Where the owner accepts nothing yet it is not proven
# either: that is `boot_reference` of `unproven`.
boot_not_contradicting if {
	input.platform.boot_reference in {"match", "absent"}
	input.platform.differences == []
}

# The registers that differ are known.
some_boot_difference if count(input.platform.differences) > 0

always contains d if {
	not boot_not_contradicting
	not some_boot_difference
	d := denial("BOOT_MISMATCH", null, "what the host booted is not what its reference values accept", "match", object.get(input, ["platform", "boot_reference"], null), null)
}

always contains d if {
	not boot_not_contradicting
	some difference in object.get(input, ["platform", "differences"], [])
	place := sprintf("PCR %v is not as the host set %v accepts it", [field(difference, "index"), object.get(input, ["platform", "host"], null)])
	hint := "if the host was changed on purpose, have its owner learn and sign it anew: weighbridge reference learn"
	d := denial("BOOT_MISMATCH", null, place, field(difference, "expected"), field(difference, "got"), hint)
}

# The kernel knows what it measured, of every file.
no_violations if input.runtime.violations == 0

always contains d if {
	not no_violations
	d := denial("RUNTIME_VIOLATION", null, "the kernel could not say what it measured", 0, object.get(input, ["runtime", "violations"], null), "a file was open for writing while it was measured: stop what writes to measured files, and reboot")
}

# Only files ran that a host set names, as far as the kernel was told to measure them.
only_known_files if {
	input.runtime.present == true
	input.runtime.unknown == 0
	no_violations
}

# ---------- platforms, in policies for genuine ones

# What policies for genuine platforms deny beside: what is emulated, what the host could copy back, what is known to be
# broken, and GPUs in development mode.
platform_denials contains d if {
	not genuine_platform
	d := denial("PLATFORM_EMULATED", null, "the platform is not a genuine one", "tpm, amd-sev-snp or intel-tdx", object.get(input, ["platform", "name"], null), null)
}

platform_denials contains d if {
	not state_not_held_by_host
	d := denial("HOST_STATE_HELD", null, "the host holds the state of this machine's TPM, and could put an old one back", "tpm or guest", object.get(input, ["platform", "state_held_by"], null), null)
}

platform_denials contains d if {
	not tee_not_broken
	got := object.get(input, ["platform", "tee", "tcb_status"], null)
	d := denial("PLATFORM_WEAK", null, "this generation of processors, or the state of this one, is known to be broken", "Genoa or Turin with no aliased memory, or a TCB that is up to date", got, "move to another machine, or have its firmware updated")
}

# The denials, one or none, of a machine of another class than `wanted`:
# deny contains d if some d in lib.class_denials("azure_snp")
class_denials(wanted) := {d |
	not platform_class == wanted
	hint := "judge it by the policy for its kind, or by production"
	d := denial("PLATFORM_CLASS", null, "the policy is for another kind of machine", wanted, platform_class, hint)
}

# ---------- GPUs, and the switches between them: both are elements of `input.gpus`, `kind` tells them apart.
#
# `gpu` is such an element: some gpu in lib.gpus

# All devices of the session; empty where the input names none.
gpus := object.get(input, "gpus", [])

# A GPU is enrolled: switches alone compute nothing.
some_gpu if {
	some gpu in gpus
	gpu.kind == "gpu"
}

always contains d if {
	not some_gpu
	d := denial("GPU_MISSING", null, "no GPU is enrolled in the session", "at least 1", 0, null)
}

# Nothing is against the device that every policy denies: its measurements are the reference's, its firmware is the one
# its certificate names, its certificate is not known to be revoked, it is not too old, its host does not say that
# confidential mode is off; and a switch is locked. What is not known of it is another matter: `unproven`,
# `gpu_revocation_good`, `gpu_recent`.
gpu_good(gpu) if {
	gpu.kind == "gpu"
	gpu.fwid == "matches"
	gpu.reference == "match"
	gpu.mismatches == 0
	gpu.differences == []
	gpu.conflicts == []
	gpu.minimum in {"none", "met"}
	gpu.revocation in {"good", "absent", "unknown", "stale"}
	gpu.cc_mode_host_claim in {"on", "devtools", null}
}

gpu_good(gpu) if {
	gpu.kind == "switch"
	gpu.signed_locked == true
	gpu.fwid in {"matches", "missing"}
	gpu.reference == "match"
	gpu.mismatches == 0
	gpu.differences == []
	gpu.conflicts == []
	gpu.minimum in {"none", "met"}
	gpu.revocation in {"good", "absent", "unknown", "stale"}
	gpu.cc_mode_host_claim in {"on", "devtools", null}
}

# The firmware that the device reports is the one that its certificate names. A switch reports no firmware digest to
# compare; its measurements are compared all the same.
fwid_matches(gpu) if gpu.fwid == "matches"

fwid_matches(gpu) if {
	gpu.kind == "switch"
	gpu.fwid == "missing"
}

always contains d if {
	some gpu in gpus
	not fwid_matches(gpu)
	d := denial("GPU_FWID", field(gpu, "identity"), "the certificate does not name the reported firmware", "matches", field(gpu, "fwid"), null)
}

# There is something to compare its measurements with.
reference_known(gpu) if gpu.reference in {"match", "mismatch"}

# Its measurements are those of the maker's manifests, or of the relying party's reference values, or of both.
reference_matches(gpu) if {
	gpu.reference == "match"
	gpu.mismatches == 0
	gpu.differences == []
}

# The measurements that differ are known one by one.
some_gpu_difference(gpu) if count(gpu.differences) > 0

always contains d if {
	some gpu in gpus
	not reference_known(gpu)
	d := denial("GPU_REFERENCE_ABSENT", field(gpu, "identity"), "there are no reference measurements for this GPU", "match", field(gpu, "reference"), reference_hint(gpu))
}

always contains d if {
	some gpu in gpus
	reference_known(gpu)
	not reference_matches(gpu)
	not some_gpu_difference(gpu)
	d := denial("GPU_MEASUREMENT_MISMATCH", field(gpu, "identity"), "the GPU's measurements are not among the reference measurements", "match", field(gpu, "reference"), reference_hint(gpu))
}

always contains d if {
	some gpu in gpus
	reference_known(gpu)
	not reference_matches(gpu)
	some difference in object.get(gpu, "differences", [])
	place := sprintf("measurement %v (%v) is not what the %v's manifest says", [field(difference, "index"), field(difference, "name"), field(difference, "owner")])
	d := denial("GPU_MEASUREMENT_MISMATCH", field(gpu, "identity"), place, field(difference, "expected"), field(difference, "got"), sprintf("known causes: %v", [field(difference, "causes")]))
}

# Whose word is missing, and where the digest would go; whether it is a good one is for whoever writes reference values
# to find out.
reference_hint(gpu) := sprintf("get the maker's manifests (%v) with weighbridge collateral; or, if this firmware is meant and known to be good, its digest goes into gpu_measurements, %v/%v/%v: %v", [
	field(gpu, "missing"),
	field(gpu, "architecture"),
	field(gpu, "driver"),
	field(gpu, "vbios"),
	field(gpu, "measurements_digest"),
])

# No measurement is claimed by two manifests: such a one has no right value.
no_conflict(gpu) if gpu.conflicts == []

always contains d if {
	some gpu in gpus
	not no_conflict(gpu)
	d := denial("RIM_CONFLICT", field(gpu, "identity"), "the driver's and the VBIOS's manifest claim the same measurement", "no index in both", field(gpu, "conflicts"), "get the newest issue of both")
}

# Driver and VBIOS are not below the relying party's minimum, where it has one for the architecture.
recent_enough(gpu) if gpu.minimum in {"none", "met"}

# The same, and there is a minimum: `gpu_minimum` of the reference values.
gpu_recent(gpu) if gpu.minimum == "met"

always contains d if {
	some gpu in gpus
	not recent_enough(gpu)
	got := sprintf("driver %v, VBIOS %v", [field(gpu, "driver"), field(gpu, "vbios")])
	d := denial("GPU_OUTDATED", field(gpu, "identity"), "driver or VBIOS is older than is accepted, or of an unknown version", "reference.gpu_minimum", got, "update it, then have the host attest anew")
}

# Nobody says that its certificate is revoked or on hold; perhaps nobody was asked.
not_revoked(gpu) if gpu.revocation in {"good", "absent", "unknown", "stale"}

# It is known that nothing is revoked: neither its certificates, nor those of its manifests' signers.
gpu_revocation_good(gpu) if {
	gpu.revocation == "good"
	signers_good(gpu)
}

# Those are good on whose word its measurements are the right ones; without manifests that is nobody.
signers_good(gpu) if {
	good := [manifest | some manifest in gpu.manifests; manifest.revocation == "good"]
	count(good) == count(gpu.manifests)
}

always contains d if {
	some gpu in gpus
	not not_revoked(gpu)
	d := denial("GPU_REVOKED", field(gpu, "identity"), "the GPU's certificate is revoked or on hold", "good", field(gpu, "revocation"), null)
}

# The host does not say that confidential computing is off. It may say nothing, and its word that it is on is no proof.
cc_mode_not_off(gpu) if gpu.cc_mode_host_claim in {"on", "devtools", null}

# Nor that it is in development mode, in which a debugger sees the GPU's memory.
cc_mode_not_devtools(gpu) if gpu.cc_mode_host_claim in {"on", "off", null}

always contains d if {
	some gpu in gpus
	not cc_mode_not_off(gpu)
	d := denial("GPU_CC_MODE", field(gpu, "identity"), "the host says that confidential computing is off", "on", field(gpu, "cc_mode_host_claim"), null)
}

# Through a switch GPUs send in plain; one that is not locked its host can set up anew after it attested.
locked(gpu) if gpu.kind == "gpu"

locked(gpu) if {
	gpu.kind == "switch"
	gpu.signed_locked == true
}

always contains d if {
	some gpu in gpus
	not locked(gpu)
	d := denial("GPU_MODE", field(gpu, "identity"), "the switch does not say that it is locked", true, field(gpu, "signed_locked"), "lock it: NVIDIA's fabric manager does so in protected-PCIe mode")
}

# The device's maker says what its measurements should be, and they are that.
gpu_vouched_by_maker(gpu) if {
	reference_matches(gpu)
	count(gpu.manifests) > 0
}

# It signs that it would run this confidential mode: "spt" for one GPU, "mpt" for several, "ppcie" for protected PCIe.
gpu_mode_is(gpu, mode) if gpu.signed_feature == mode

# It reported in this window; others reported in an earlier one, as the session's terms say.
gpu_reported(gpu) if gpu.reported_in_window == true

# The device is none that is made of software.
genuine_gpu(gpu) if gpu.platform == "nvidia"

# ---------- GPUs, in policies for genuine platforms

platform_denials contains d if {
	some gpu in gpus
	not genuine_gpu(gpu)
	d := denial("PLATFORM_EMULATED", field(gpu, "identity"), "the GPU is not a genuine one", "nvidia", field(gpu, "platform"), null)
}

platform_denials contains d if {
	some gpu in gpus
	not cc_mode_not_devtools(gpu)
	d := denial("GPU_CC_MODE", field(gpu, "identity"), "the host says that the GPU is in development mode", "on", field(gpu, "cc_mode_host_claim"), null)
}

# The denials for GPUs of another architecture than `wanted`, such as "GH100"; switches have their own.
architecture_denials(wanted) := {d |
	some gpu in gpus
	gpu.kind == "gpu"
	not is_architecture(gpu, wanted)
	d := denial("GPU_ARCH", field(gpu, "identity"), "the policy is for another kind of GPU", wanted, field(gpu, "architecture"), null)
}

# The GPU is of this architecture, by its certificates.
is_architecture(gpu, wanted) if gpu.architecture == wanted

# ---------- Weights: which models the session declares, which are loaded, and what owners and others say about them.
#
# `model` is one of the input's: some model in lib.declared, or in lib.loaded

# The models that the session declares.
declared := object.get(input, ["weights", "declared"], [])

# The models that are loaded and not unloaded.
loaded := object.get(input, ["weights", "loaded"], [])

# A model is declared.
some_declared if count(declared) > 0

always contains d if {
	not some_declared
	d := denial("MODEL_UNDECLARED", null, "the session declares no model", "at least 1", 0, null)
}

# An adapter may be loaded; the model must be.
optional(model) if model.role == "adapter"

# The declared model is loaded.
is_loaded(model) if {
	some other in loaded
	other.manifest == model.manifest
}

always contains d if {
	some model in declared
	not optional(model)
	not is_loaded(model)
	d := denial("MODEL_NOT_LOADED", null, "the declared model is not loaded", field(model, "manifest"), null, null)
}

# The loaded model is declared.
is_declared(model) if {
	model.declared == true
	some other in declared
	other.manifest == model.manifest
}

always contains d if {
	some model in loaded
	not is_declared(model)
	d := denial("MODEL_UNDECLARED", null, "a model was loaded that is not declared", null, field(model, "manifest"), "declare it, or unload it and open a new session")
}

# The model is among the reference values: the relying party, or an owner whom it believes, accepts it.
in_reference(model) if is_string(data.reference.models[model.manifest].name)

always contains d if {
	some model in declared
	not in_reference(model)
	d := denial("REFERENCE_ABSENT", null, "the declared model is not among the reference models", null, field(model, "manifest"), "add the manifest's digest to models")
}

always contains d if {
	some model in loaded
	not in_reference(model)
	d := denial("REFERENCE_ABSENT", null, "the loaded model is not among the reference models", null, field(model, "manifest"), "add the manifest's digest to models")
}

# What is loaded is what is declared, to the bit.
weights_equal if input.weights.differences == []

# The places where they differ are known.
some_difference if count(input.weights.differences) > 0

always contains d if {
	not weights_equal
	not some_difference
	d := denial("WEIGHTS_MISMATCH", null, "it is not shown that the loaded weights are the declared ones", null, null, null)
}

always contains d if {
	some difference in object.get(input, ["weights", "differences"], [])
	place := sprintf("%v %v %v", [field(difference, "kind"), field(difference, "file"), field(difference, "tensor")])
	d := denial("WEIGHTS_MISMATCH", null, place, field(difference, "expected"), field(difference, "got"), null)
}

# The log of loads begins where nothing was loaded, or what was there before is explained.
baseline_explained if input.weights.baseline in {"zero", "boot-log"}

always contains d if {
	not baseline_explained
	d := denial("BASELINE_UNEXPLAINED", null, "the beginning of the measurement log is not explained", "zero or boot-log", object.get(input, ["weights", "baseline"], null), null)
}

# The session serves this model: its manifest (hex) is the one that is declared as the model, and it is loaded.
model_is(digest) if {
	some model in declared
	model.role == "model"
	model.manifest == digest
	is_loaded(model)
}

# Nothing else is loaded than these: a set or list of manifests' digests (hex). Something is loaded.
only_models(digests) if {
	count(loaded) > 0
	every model in loaded { model.manifest in digests }
}

# Something bound the files between measuring and loading: the kernel, or a guard in the server. The host's word.
load_bound(model) if model.protection in {"fs-verity", "dm-verity", "guarded"}

# ---------- spot checks, for whoever wants more of them than a warning

# No spot check was due, or it was answered; not so when the pool is empty, or the window held.
spot_answered if input.weights.spot_check.status in {"passed", "not_due"}

remarks contains w if {
	spot_not_issued
	w := {"code": "SPOT_POOL_EMPTY", "message": "a spot check was due, and none was left for this model"}
}

# A spot check was due in this fresh window, and none was left to ask.
spot_not_issued if {
	input.weights.spot_check.status == "not_issued"
	fresh
}

# ---------- what owners and others say about a model

# Its owner is this one, whose set accepts it at the time of receipt.
owned(model, owner) if {
	known := data.reference.models[model.manifest]
	known.owner == owner
	time.parse_rfc3339_ns(known.not_before) <= time.now_ns()
	time.now_ns() <= time.parse_rfc3339_ns(known.not_after)
}

# There is a statement of this type by this issuer. Nothing of its content is known here: neither what was evaluated nor
# with what result. Demand types whose issuers sign them for what you accept, and for nothing else.
statement(model, type, issuer) if {
	some made in data.reference.models[model.manifest].statements
	made.type == type
	made.issuer == issuer
}

# The same, dated, and not older than so many days. The date is the issuer's word; one of the future does not count.
statement_within(model, type, issuer, days) if {
	some made in data.reference.models[model.manifest].statements
	made.type == type
	made.issuer == issuer
	age := time.now_ns() - time.parse_rfc3339_ns(made.date)
	age >= 0
	age <= days * day_ns
}

# A day in nanoseconds.
day_ns := ((24 * 60) * 60) * 1000000000

# ---------- Telemetry: what the physical record says. It can contradict and corroborate; it never vouches for weights.

# The sources of samples.
sources := object.get(input, ["telemetry", "sources"], [])

# What the record shows of each enrolled GPU.
recorded := object.get(input, ["telemetry", "devices"], [])

# The record does not contradict what is declared; it may be that nothing is known to compare it with, or not yet enough
# of it is there.
telemetry_not_contradicting if {
	input.telemetry.verdict in {"in_baseline", "no_baseline", "unusable"}
	not some_device_contradicting
}

# The same of one device: some device in lib.recorded
device_not_contradicting(device) if device.verdict in {"in_baseline", "no_baseline", "unusable"}

# The record of every GPU is what this model on it shows under this work. It corroborates, and never vouches for weights.
telemetry_in_baseline if {
	input.telemetry.verdict == "in_baseline"
	agreeing := {device.device | some device in input.telemetry.devices; device.verdict == "in_baseline"}
	count(agreeing) == count(input.telemetry.devices)
	enrolled := {gpu.identity | some gpu in input.gpus; not gpu.kind == "switch"}
	count(enrolled) > 0
	count(enrolled - agreeing) == 0
}

# What contradicts is known device by device.
some_device_contradicting if {
	some device in recorded
	not device_not_contradicting(device)
}

always contains d if {
	not telemetry_not_contradicting
	not some_device_contradicting
	d := denial(telemetry_code, null, "the physical record contradicts what is declared", "in_baseline", object.get(input, ["telemetry", "verdict"], null), null)
}

always contains d if {
	some device in recorded
	not device_not_contradicting(device)
	not device_implausible(device)
	message := sprintf("the GPU's physical record is not that of its baseline: %v", [field(device, "why")])
	got := sprintf("score %v, evidence %v (both in thousandths); %v mW beyond what the work explains, give or take %v mW", [
		field(device, "score"),
		field(device, "e_log10_milli"),
		field(device, "residual_mw"),
		field(device, "uncertainty_mw"),
	])
	expected := sprintf("score at most %v, by baseline %v", [field(device, "threshold"), field(device, "baseline")])
	d := denial("TELEMETRY_OUT_OF_BASELINE", field(device, "device"), message, expected, got, telemetry_hint)
}

# The record cannot be: nothing that a GPU does looks so.
device_implausible(device) if device.verdict == "implausible"

# The checks that say so are known.
some_implausible(device) if {
	some finding in device.findings
	finding.verdict == "implausible"
}

always contains d if {
	some device in recorded
	device_implausible(device)
	not some_implausible(device)
	message := sprintf("the GPU's physical record cannot be: %v", [field(device, "why")])
	d := denial("TELEMETRY_IMPLAUSIBLE", field(device, "device"), message, null, null, telemetry_hint)
}

always contains d if {
	some device in recorded
	device_implausible(device)
	some finding in object.get(device, "findings", [])
	finding.verdict == "implausible"
	message := sprintf("the GPU's physical record cannot be: %v of %v", [field(finding, "check"), field(finding, "channel")])
	d := denial("TELEMETRY_IMPLAUSIBLE", field(device, "device"), message, field(finding, "expected"), field(finding, "got"), telemetry_hint)
}

# Of an alarm the instrument can tell that something differs, and not what.
telemetry_hint := "let a person look at the host and its record: the alarm says that something differs, not what; weighbridge clear forgives it"

# A GPU used more energy between two sessions than an idle one does. Nobody attested what for, and nobody had to.
remarks contains w if {
	some item in object.get(input, ["telemetry", "unreported"], [])
	item.energy_mj > item.idle_mj
	message := sprintf("GPU %v used %v mJ in the %v s before this session, and an idle one uses %v mJ", [item.device, item.energy_mj, item.gap_s, item.idle_mj])
	w := {"code": "TELEMETRY_UNREPORTED", "message": message}
}

# Its energy counter began anew in between, as it does when its driver is loaded: what it used then is not known. To
# compare null with a number would say nothing.
remarks contains w if {
	some item in object.get(input, ["telemetry", "unreported"], [])
	item.energy_mj == null
	message := sprintf("the energy counter of GPU %v began anew in the %v s before this session: what it used is not known", [item.device, item.gap_s])
	w := {"code": "TELEMETRY_UNREPORTED", "message": message}
}

# There are samples of this channel, such as "power", of the device; of the host where `device` is null.
measured(device, channel) if {
	some source in sources
	source.device == device
	channel in source.channels
}

# The source is none that is made of software.
genuine_source(source) if source.platform in {"nvidia", "host"}

platform_denials contains d if {
	some source in sources
	not genuine_source(source)
	d := denial("PLATFORM_EMULATED", field(source, "device"), "the telemetry is not of a genuine source", "nvidia or host", field(source, "platform"), null)
}

# ---------- Proof: what evidence may leave open, and the relying party's reasons for leaving it open.

# The only checks that may be left out, and the code of their denial.
excusable := {
	"attester_code": "UNPROVEN",
	"secure_boot": "UNPROVEN",
	"host_binding": "UNPROVEN",
	"boot_reference": "UNPROVEN",
	"platform_tcb": "UNPROVEN",
	"gpu_revocation": "GPU_REVOCATION_UNKNOWN",
	"load_binding": "UNPROVEN",
	"telemetry_baseline": "TELEMETRY_NO_BASELINE",
}

# The checks that this window's evidence proves, by their names in `excusable`.
proven contains "attester_code" if input.attester_code.status == "proven"

# Firmware started signed images only, and root cannot change the kernel.
proven contains "secure_boot" if {
	input.platform.secure_boot == "proven"
	input.platform.kernel_lockdown == "proven"
}

# Hardware says that the TPM is the guest's own.
proven contains "host_binding" if input.platform.host_binding == "proven"

# The boot registers are as their owner accepts them.
proven contains "boot_reference" if {
	input.platform.boot_reference == "match"
	input.platform.differences == []
	input.platform.tee.kind == "none"
}

# A quote is worth what made it: a TPM of its own, or the guest's first code, whose measurement is a reference value.
proven contains "boot_reference" if {
	input.platform.boot_reference == "match"
	input.platform.differences == []
	input.platform.host_binding == "proven"
}

# Nothing of a confidential machine to judge, or all of it known and good.
proven contains "platform_tcb" if input.platform.tee.kind == "none"

proven contains "platform_tcb" if {
	input.platform.tee.kind == "tdx"
	input.platform.tee.tcb_status == "UpToDate"
	tee_not_broken
}

proven contains "platform_tcb" if {
	input.platform.tee.kind == "sev-snp"
	input.platform.tee.alias_check == "complete"
	tee_not_broken
}

# Of no device and no manifest's signer a certificate is revoked, and all of it is known.
proven contains "gpu_revocation" if {
	count(input.gpus) > 0
	every gpu in input.gpus {
		gpu.revocation == "good"
		is_array(gpu.manifests)
	}
	unsure := [manifest | some gpu in input.gpus; some manifest in gpu.manifests; not manifest.revocation == "good"]
	count(unsure) == 0
}

# Something bound the files of every model between measuring and loading.
proven contains "load_binding" if {
	count(input.weights.loaded) > 0
	every model in input.weights.loaded { model.protection in {"fs-verity", "dm-verity", "guarded"} }
}

# The physical record is what it should be, of every GPU.
proven contains "telemetry_baseline" if telemetry_in_baseline

# The names of all the checks.
checks := {
	"attester_code", "boot_reference", "gpu_revocation", "host_binding", "load_binding", "platform_tcb", "secure_boot",
	"telemetry_baseline",
}

# The checks that it does not prove.
unproven := checks - proven

# The relying party's written reason for leaving out a check: `unchecked` of the reference values. Undefined without one.
reason(check) := text if {
	text := data.reference.unchecked[check]
	is_string(text)
	count(trim_space(text)) >= 10
}

# Of the checks that a policy lets be left out, those that are not proven and have a reason, as entries of `unchecked`:
# unchecked contains entry if some entry in lib.excused(lib.checks)
excused(leave) := {entry |
	some check, text in data.reference.unchecked
	check in leave
	check in unproven
	is_string(text)
	count(trim_space(text)) >= 10
	entry := {"check": check, "reason": text}
}

# Of all checks those that are neither proven nor among the entries of `unchecked`, as denials:
# deny contains d if some d in lib.unproven_denials(unchecked, lib.checks)
unproven_denials(entries, leave) := {d |
	left_out := {entry.check | some entry in entries}
	some check in unproven - left_out
	state := proof_state(check)
	d := denial(proof_code(check), proof_device(check), proof_message(check, state), "proven", state, proof_hint(check, leave))
}

# The code of the denial for a check that is not proven: of the physical record, by what it says.
proof_code(check) := telemetry_code if {
	check == "telemetry_baseline"
} else := excusable[check]

default telemetry_code := "TELEMETRY_OUT_OF_BASELINE"

telemetry_code := "TELEMETRY_NO_BASELINE" if input.telemetry.verdict in {"in_baseline", "no_baseline"}

telemetry_code := "TELEMETRY_UNUSABLE" if input.telemetry.verdict == "unusable"

telemetry_code := "TELEMETRY_IMPLAUSIBLE" if input.telemetry.verdict == "implausible"

# The first GPU of which is said what is said of all of them, where that is not that it is in its baseline.
unsettled := devices[0] if {
	input.telemetry.verdict != "in_baseline"
	devices := [device | some device in recorded; device.verdict == input.telemetry.verdict]
	count(devices) > 0
}

# The GPU that is to be looked at for a check that is not proven.
proof_device(check) := device if {
	check == "telemetry_baseline"
	device := unsettled.device
} else := null

# How it stands with the check: of the physical record, why, in the words of that GPU.
proof_state(check) := unsettled.why if {
	check == "telemetry_baseline"
	is_string(unsettled.why)
} else := "unproven"

# That a check is not proven, and why, where the evidence says why.
proof_message(check, state) := sprintf("%v is not proven", [check]) if {
	state == "unproven"
} else := sprintf("%v is not proven: %v", [check, state])

# What to do about a check that is not proven. A record that is too short becomes longer by itself, and no reason leaves
# out what contradicts.
proof_hint(check, leave) := "wait for the next windows: a unit of samples is complete then; if it stays, a sensor fails, or no run of the baseline had such work" if {
	check == "telemetry_baseline"
	telemetry_code == "TELEMETRY_UNUSABLE"
} else := telemetry_hint if {
	check == "telemetry_baseline"
	telemetry_code in {"TELEMETRY_OUT_OF_BASELINE", "TELEMETRY_IMPLAUSIBLE"}
} else := sprintf("prove it; or, if you accept that, write the reason into reference.unchecked.%v", [check]) if {
	check in leave
} else := "prove it: the policy takes no reason for leaving it out"

# ---------- what an admission in doubt costs, as `obligations`

# A spot check where one was due and none was left to ask; to attest anew soon where it is not known whether something
# was revoked since.
doubts contains o if {
	spot_not_issued
	o := {"kind": "spot_check", "reason": "a spot check was due, and none was left for this model"}
}

doubts contains o if {
	some gpu in input.gpus
	gpu.revocation == "stale"
	o := {"kind": "reattest", "seconds": 30, "reason": "what is known of the GPU's revocation is past its time"}
}

doubts contains o if {
	input.platform.tee.revocation == "stale"
	o := {"kind": "reattest", "seconds": 30, "reason": "what is known of the processor's revocation is past its time"}
}

# ---------- in short: what every policy demands

# Nothing is denied by `always`, and everything is there that it looks at: the same conditions in one rule, which costs a
# third. A policy that asks `sound` first need not look for what is wrong; `allow` asks for it too.
sound if {
	input.schema == "weighbridge/policy-input/v1"
	input.window.freshness == "fresh"
	is_array(input.findings)

	# What booted and ran, and what the record says.
	input.platform.boot_reference in {"match", "absent"}
	input.platform.differences == []
	input.runtime.violations == 0
	telemetry_not_contradicting
	is_array(input.telemetry.sources)
	is_array(input.telemetry.devices)
	is_array(input.telemetry.unreported)

	# There is a GPU, and nothing is against any device.
	is_array(input.gpus)
	count([gpu | some gpu in input.gpus; gpu.kind == "gpu"]) > 0
	count(input.gpus) > 0
	every gpu in input.gpus { gpu_good(gpu) }

	# The weights are the declared ones, and their log is whole.
	input.weights.differences == []
	input.weights.baseline in {"zero", "boot-log"}
	models_sound
}

# The declared model is loaded; every model is known to the relying party, and all that is loaded is declared.
models_sound if {
	is_array(input.weights.declared)
	is_array(input.weights.loaded)
	count(input.weights.declared) > 0
	every model in input.weights.declared { is_string(data.reference.models[model.manifest].name) }
	names := {model.manifest | some model in input.weights.declared}
	there := [model.manifest | some model in input.weights.loaded; model.declared == true; model.manifest in names]
	count(there) == count(input.weights.loaded)
	needed := {model.manifest | some model in input.weights.declared; not model.role == "adapter"}
	count(needed - {manifest | some manifest in there}) == 0
}

# Nothing is denied by `platform_denials`, and there is a device: in one rule as well.
genuine if {
	input.platform.name in {"tpm", "google-vtpm", "amd-sev-snp", "intel-tdx"}
	input.platform.state_held_by in {"tpm", "guest", "unknown"}
	tee_not_broken
	count(input.gpus) > 0
	every gpu in input.gpus {
		gpu.platform == "nvidia"
		gpu.cc_mode_host_claim in {"on", "off", null}
	}
	real := [source | some source in input.telemetry.sources; source.platform in {"nvidia", "host"}]
	count(real) == count(input.telemetry.sources)
}
