# Where our model may run at a cloud: in a confidential machine, on GPUs in confidential mode, with an image we know.
#
# For a tenant who does not trust the cloud's host. Hardware must say that the attestation key is the guest's own, and
# what the guest booted must be what our host sets say. `weighbridge policy docs` lists what a rule can look at.
package weighbridge.policy

import data.weighbridge.lib
import rego.v1

# Nothing is admitted unless a rule below says so.
default allow := false

# Admitted is a window that nothing is said against.
allow if count(deny) == 0

# ---------- what every policy demands

# Fresh evidence, known GPUs, weights as declared. Leave this rule in: the library goes on growing.
deny contains d if some d in lib.always

# ---------- a confidential machine, and nothing known against its generation

deny contains d if {
	not confidential_machine
	d := lib.denial(
		"NOT_CONFIDENTIAL", null, "the host is not a confidential machine that speaks for itself",
		"SEV-SNP or TDX that vouches for the attestation key", input.platform.kind,
		"ask the cloud for a confidential machine; `weighbridge policy docs input.platform` says what is proven",
	)
}

confidential_machine if {
	input.platform.tee.kind in {"sev-snp", "tdx"}
	input.platform.host_binding == "proven"
	input.platform.state_held_by in {"guest", "tpm"}
}

deny contains d if {
	not lib.tee_not_broken
	d := lib.denial(
		"PLATFORM_WEAK", null, "this generation of processors, or the state of this one, is known to be broken",
		"a generation without published breaks, up to date", input.platform.tee.tcb_status,
		"move to another machine, or have its firmware updated",
	)
}

# ---------- what it booted is an image of ours: no reason excuses this one

deny contains d if {
	not known_image
	d := lib.denial(
		"IMAGE_UNKNOWN", null, "what the machine booted is in none of our host sets",
		"match", input.platform.boot_reference, "learn the image once: weighbridge reference learn",
	)
}

known_image if {
	input.platform.boot_reference == "match"
	input.platform.secure_boot == "proven"
	input.platform.kernel_lockdown == "proven"
}

# ---------- genuine GPUs in confidential mode, with nothing revoked

deny contains d if {
	some gpu in input.gpus
	not fit(gpu)
	d := lib.denial(
		"GPU_NOT_FIT", gpu.identity, "the GPU is not genuine, not in confidential mode, or of unknown revocation",
		"nvidia, spt or ppcie, good", [gpu.platform, gpu.signed_feature, gpu.revocation],
		"fetch what its maker published: weighbridge collateral fetch",
	)
}

fit(gpu) if {
	lib.genuine_gpu(gpu)
	gpu.kind == "gpu"
	gpu.signed_feature in {"spt", "ppcie"}
	gpu.revocation == "good"
}

fit(gpu) if {
	lib.genuine_gpu(gpu)
	gpu.kind == "switch"
	gpu.revocation == "good"
}

# ---------- the rest of what is not proven is left out by name, and every verdict says so

may_be_left_out := {
	"platform_tcb": "AMD's Genoa does not say whether memory was checked for aliases",
	"telemetry_baseline": "no baseline of this model is recorded yet",
}

unchecked contains entry if {
	some check, reason in may_be_left_out
	check in lib.unproven
	entry := {"check": check, "reason": reason}
}

deny contains d if {
	some check in lib.unproven - object.keys(may_be_left_out)
	code := lib.excusable[check]
	message := sprintf("%v is not proven", [check])
	d := lib.denial(code, null, message, "proven", "unproven", "prove it, or name it in may_be_left_out with the reason")
}

# ---------- worth saying, and no reason to refuse

warn contains w if some w in lib.remarks
