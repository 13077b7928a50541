# The policy for production: only genuine platforms, and everything proven, or left out by a reason that the relying
# party wrote into reference.unchecked and that stands in every verdict.
package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	lib.schema_known
	lib.lists_present
	lib.fresh
	lib.some_gpu
	lib.some_declared
	lib.weights_equal
	lib.genuine_platform
}

deny contains d if some d in lib.always

# ---------- emulated platforms are never admitted

deny contains d if {
	not lib.genuine_platform
	d := lib.denial("PLATFORM_EMULATED", null, "the platform is not a genuine one", "tpm, amd-sev-snp or intel-tdx", object.get(input, ["platform", "name"], null), null)
}

deny contains d if {
	some gpu in lib.gpus
	not lib.genuine_gpu(gpu)
	d := lib.denial("PLATFORM_EMULATED", lib.field(gpu, "identity"), "the GPU is not a genuine one", "nvidia", lib.field(gpu, "platform"), null)
}

deny contains d if {
	some source in lib.sources
	not lib.genuine_source(source)
	d := lib.denial("PLATFORM_EMULATED", lib.field(source, "device"), "the telemetry is not of a genuine source", "nvidia or host", lib.field(source, "platform"), null)
}

# ---------- nor those whose host holds the TPM's state, nor broken generations

deny contains d if {
	not lib.state_not_held_by_host
	d := lib.denial("HOST_STATE_HELD", null, "the host holds the state of this machine's TPM, and could put an old one back", "tpm or guest", object.get(input, ["platform", "state_held_by"], null), null)
}

deny contains d if {
	not lib.tee_not_broken
	got := object.get(input, ["platform", "tee", "tcb_status"], null)
	d := lib.denial("PLATFORM_WEAK", null, "this generation of processors, or the state of this one, is known to be broken", "Genoa or Turin with no aliased memory, or a TCB that is up to date", got, "move to another machine, or have its firmware updated")
}

deny contains d if {
	some gpu in lib.gpus
	not cc_mode_not_devtools(gpu)
	d := lib.denial("GPU_CC_MODE", lib.field(gpu, "identity"), "the host says that the GPU is in development mode", "on", lib.field(gpu, "cc_mode_host_claim"), null)
}

cc_mode_not_devtools(gpu) if gpu.cc_mode_host_claim in {"on", "off", null}

# ---------- what is not proven needs a written reason

unchecked contains entry if {
	some check in lib.unproven
	reason := lib.reason(check)
	entry := {"check": check, "reason": reason}
}

excused := {entry.check | some entry in unchecked}

deny contains d if {
	some check in lib.unproven - excused
	code := lib.excusable[check]
	hint := sprintf("prove it, or write the reason for leaving it out into reference.unchecked.%v", [check])
	d := lib.denial(code, null, sprintf("%v is not proven", [check]), "proven", "unproven", hint)
}

warn contains w if some w in lib.remarks
