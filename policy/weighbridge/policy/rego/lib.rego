# Library of every Weighbridge policy. Rules here hold for all of them; a policy adds its own with `deny contains`.
#
# Conventions, so that a missing or strange field ends in a denial and never in silence:
# a check is a *positive* rule, true only when everything is there and right, and the denial is its `not`;
# what a denial says about the input goes through `field`, which has a value whatever the input holds.
package weighbridge.lib

import rego.v1

schema := "weighbridge/policy-input/v1"

# ---------- building blocks

# The member of an object, or null.
field(object_, name) := object.get(object_, name, null)

# Anything as text; null stays null.
shown(value) := value if {
	is_string(value)
} else := null if {
	is_null(value)
} else := json.marshal(value)

# One denial. `device`, `expected`, `got` and `hint` may be null.
denial(code, device, message, expected, got, hint) := {
	"code": code,
	"window": object.get(input, ["window", "seq"], null),
	"device": shown(device),
	"message": message,
	"expected": shown(expected),
	"got": shown(got),
	"hint": hint,
}

gpus := object.get(input, "gpus", [])

declared := object.get(input, ["weights", "declared"], [])

loaded := object.get(input, ["weights", "loaded"], [])

sources := object.get(input, ["telemetry", "sources"], [])

# ---------- denials that every policy has

always contains d if {
	not schema_known
	d := denial("VERSION_UNSUPPORTED", null, "the input document has another schema", schema, field(input, "schema"), null)
}

schema_known if input.schema == schema

# A list that is not there would satisfy every rule about its elements.
always contains d if {
	not lists_present
	d := denial("POLICY_ERROR", null, "the input document lacks a list", null, null, null)
}

lists_present if {
	is_array(input.gpus)
	is_array(input.weights.declared)
	is_array(input.weights.loaded)
	is_array(input.weights.differences)
	is_array(input.telemetry.sources)
	is_array(input.platform.differences)
}

# -- freshness

always contains d if {
	not fresh
	freshness := object.get(input, ["window", "freshness"], null)
	d := denial("WINDOW_HELD", null, "the window arrived under an old challenge", "fresh", freshness, "held windows are kept and never admitted")
}

fresh if input.window.freshness == "fresh"

# -- GPUs

always contains d if {
	not some_gpu
	d := denial("GPU_MISSING", null, "no GPU is enrolled in the session", "at least 1", 0, null)
}

some_gpu if {
	some gpu in gpus
	gpu.kind == "gpu"
}

always contains d if {
	some gpu in gpus
	not fwid_matches(gpu)
	d := denial("GPU_FWID", field(gpu, "identity"), "the certificate does not name the reported firmware", "matches", field(gpu, "fwid"), null)
}

fwid_matches(gpu) if gpu.fwid == "matches"

# A switch reports no firmware digest to compare; its measurements are compared all the same.
fwid_matches(gpu) if {
	gpu.kind == "switch"
	gpu.fwid == "missing"
}

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

some_gpu_difference(gpu) if count(gpu.differences) > 0

# An index that two manifests claim has no right value.
always contains d if {
	some gpu in gpus
	not no_conflict(gpu)
	d := denial("RIM_CONFLICT", field(gpu, "identity"), "the driver's and the VBIOS's manifest claim the same measurement", "no index in both", field(gpu, "conflicts"), "get the newest issue of both")
}

no_conflict(gpu) if gpu.conflicts == []

# Versions below the relying party's minimum, or that cannot be compared with it.
always contains d if {
	some gpu in gpus
	not recent_enough(gpu)
	got := sprintf("driver %v, VBIOS %v", [field(gpu, "driver"), field(gpu, "vbios")])
	d := denial("GPU_OUTDATED", field(gpu, "identity"), "driver or VBIOS is older than is accepted, or of an unknown version", "reference.gpu_minimum", got, "update it, then have the host attest anew")
}

recent_enough(gpu) if gpu.minimum in {"none", "met"}

# Whose word is missing, and where the digest would go; whether it is a good one is for whoever writes reference values
# to find out.
reference_hint(gpu) := sprintf("get the maker's manifests (%v) with weighbridge collateral; or, if this firmware is meant and known to be good, its digest goes into gpu_measurements, %v/%v/%v: %v", [
	field(gpu, "missing"),
	field(gpu, "architecture"),
	field(gpu, "driver"),
	field(gpu, "vbios"),
	field(gpu, "measurements_digest"),
])

reference_known(gpu) if gpu.reference in {"match", "mismatch"}

reference_matches(gpu) if {
	gpu.reference == "match"
	gpu.mismatches == 0
	gpu.differences == []
}

always contains d if {
	some gpu in gpus
	not not_revoked(gpu)
	d := denial("GPU_REVOKED", field(gpu, "identity"), "the GPU's certificate is revoked or on hold", "good", field(gpu, "revocation"), null)
}

not_revoked(gpu) if gpu.revocation in {"good", "absent", "unknown", "stale"}

always contains d if {
	some gpu in gpus
	not cc_mode_not_off(gpu)
	d := denial("GPU_CC_MODE", field(gpu, "identity"), "the host says that confidential computing is off", "on", field(gpu, "cc_mode_host_claim"), null)
}

cc_mode_not_off(gpu) if gpu.cc_mode_host_claim in {"on", "devtools", null}

# Through a switch GPUs send in plain; one that is not locked its host can set up anew after it attested.
always contains d if {
	some gpu in gpus
	not locked(gpu)
	d := denial("GPU_MODE", field(gpu, "identity"), "the switch does not say that it is locked", true, field(gpu, "signed_locked"), "lock it: NVIDIA's fabric manager does so in protected-PCIe mode")
}

locked(gpu) if gpu.kind == "gpu"

locked(gpu) if {
	gpu.kind == "switch"
	gpu.signed_locked == true
}

# -- weights

always contains d if {
	not some_declared
	d := denial("MODEL_UNDECLARED", null, "the session declares no model", "at least 1", 0, null)
}

some_declared if count(declared) > 0

always contains d if {
	some model in declared
	not optional(model)
	not is_loaded(model)
	d := denial("MODEL_NOT_LOADED", null, "the declared model is not loaded", field(model, "manifest"), null, null)
}

# An adapter may be loaded; the model must be.
optional(model) if model.role == "adapter"

is_loaded(model) if {
	some other in loaded
	other.manifest == model.manifest
}

always contains d if {
	some model in loaded
	not is_declared(model)
	d := denial("MODEL_UNDECLARED", null, "a model was loaded that is not declared", null, field(model, "manifest"), "declare it, or unload it and open a new session")
}

is_declared(model) if {
	model.declared == true
	some other in declared
	other.manifest == model.manifest
}

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

in_reference(model) if is_string(data.reference.models[model.manifest].name)

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

weights_equal if input.weights.differences == []

some_difference if count(input.weights.differences) > 0

always contains d if {
	not baseline_explained
	d := denial("BASELINE_UNEXPLAINED", null, "the beginning of the measurement log is not explained", "zero or boot-log", object.get(input, ["weights", "baseline"], null), null)
}

baseline_explained if input.weights.baseline in {"zero", "boot-log"}

# -- what booted, and what ran

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

boot_not_contradicting if {
	input.platform.boot_reference in {"match", "absent"}
	input.platform.differences == []
}

some_boot_difference if count(input.platform.differences) > 0

always contains d if {
	not no_violations
	d := denial("RUNTIME_VIOLATION", null, "the kernel could not say what it measured", 0, object.get(input, ["runtime", "violations"], null), "a file was open for writing while it was measured: stop what writes to measured files, and reboot")
}

no_violations if input.runtime.violations == 0

# -- telemetry: it can contradict, it can never vouch

always contains d if {
	not telemetry_not_contradicting
	d := denial("TELEMETRY_OUT_OF_BASELINE", null, "the physical record contradicts what is declared", "in_baseline", object.get(input, ["telemetry", "verdict"], null), null)
}

telemetry_not_contradicting if input.telemetry.verdict in {"in_baseline", "no_baseline"}

# ---------- what no evidence proves yet

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

proven contains "attester_code" if input.attester_code.status == "proven"

proven contains "secure_boot" if {
	input.platform.secure_boot == "proven"
	input.platform.kernel_lockdown == "proven"
}

proven contains "host_binding" if input.platform.host_binding == "proven"

proven contains "boot_reference" if {
	input.platform.boot_reference == "match"
	input.platform.differences == []
	quotes_believed
}

# A quote is worth what made it: a TPM of its own, or the guest's first code, whose measurement is a reference value.
quotes_believed if input.platform.tee.kind == "none"

quotes_believed if input.platform.host_binding == "proven"

# Nothing of a confidential machine to judge, or all of it known and good.
proven contains "platform_tcb" if input.platform.tee.kind == "none"

proven contains "platform_tcb" if {
	tee_not_broken
	input.platform.tee.kind == "tdx"
	input.platform.tee.tcb_status == "UpToDate"
}

proven contains "platform_tcb" if {
	tee_not_broken
	input.platform.tee.kind == "sev-snp"
	input.platform.tee.alias_check == "complete"
}

proven contains "gpu_revocation" if {
	count(gpus) > 0
	every gpu in gpus { gpu.revocation == "good" }
	every gpu in gpus { signers_good(gpu) }
}

# Those are good, too, on whose word its measurements are the right ones; without manifests that is nobody.
signers_good(gpu) if {
	good := [manifest | some manifest in gpu.manifests; manifest.revocation == "good"]
	count(good) == count(gpu.manifests)
}

# Something bound the files of every model between measuring and loading: the kernel, or a guard in the server.
proven contains "load_binding" if {
	count(loaded) > 0
	every model in loaded { model.protection in {"fs-verity", "dm-verity", "guarded"} }
}

proven contains "telemetry_baseline" if input.telemetry.verdict == "in_baseline"

unproven := object.keys(excusable) - proven

# The relying party's written reason for leaving out a check.
reason(check) := text if {
	text := data.reference.unchecked[check]
	is_string(text)
	count(trim_space(text)) >= 10
}

# ---------- spot checks, for whoever wants more of them than a warning

# No spot check was due, or it was answered; not so when the pool is empty, or the window held.
spot_answered if input.weights.spot_check.status in {"passed", "not_due"}

# ---------- emulated platforms, and those that are known to be broken

genuine_platform if input.platform.name in {"tpm", "google-vtpm", "amd-sev-snp", "intel-tdx"}

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

# Whoever holds the TPM's state could copy it back; a TPM of its own, or the guest's firmware, does not let the host.
state_not_held_by_host if input.platform.state_held_by in {"tpm", "guest", "unknown"}

genuine_gpu(gpu) if gpu.platform == "nvidia"

genuine_source(source) if source.platform in {"nvidia", "host"}

# ---------- what owners and others say about a model

# `model` is one of the input's: declared or loaded.

# Its owner is this one, whose set accepts it at the time of receipt.
owned(model, owner) if {
	known := data.reference.models[model.manifest]
	known.owner == owner
	time.parse_rfc3339_ns(known.not_before) <= time.now_ns()
	time.now_ns() <= time.parse_rfc3339_ns(known.not_after)
}

# A statement of this type by this issuer. Nothing of its content is known here: neither what was evaluated nor with
# what result. Demand types whose issuers sign them for what you accept, and for nothing else.
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

day_ns := ((24 * 60) * 60) * 1000000000

# ---------- things worth saying

remarks contains w if {
	some finding in object.get(input, "findings", [])
	w := {"code": field(finding, "code"), "message": field(finding, "message")}
}

remarks contains w if {
	held := input.gap.held_windows
	held > 0
	w := {"code": "WINDOW_HELD", "message": sprintf("%v windows were held back before this one", [held])}
}

remarks contains w if {
	input.weights.spot_check.status == "not_issued"
	fresh
	w := {"code": "SPOT_POOL_EMPTY", "message": "a spot check was due, and none was left for this model"}
}
