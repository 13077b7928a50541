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

# Nothing emulated, no generation of processors that is known to be broken, no GPU in development mode.
deny contains d if some d in lib.platform_denials

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

# ---------- GPUs in confidential mode, with nothing revoked

deny contains d if {
	some gpu in input.gpus
	not fit(gpu)
	d := lib.denial(
		"GPU_NOT_FIT", gpu.identity, "the GPU is not in confidential mode, or it is not known whether it is revoked",
		"spt or ppcie, good", [gpu.signed_feature, gpu.revocation],
		"fetch what its maker published: weighbridge collateral fetch",
	)
}

fit(gpu) if {
	gpu.kind == "gpu"
	gpu.signed_feature in {"spt", "ppcie"}
	lib.gpu_revocation_good(gpu)
}

fit(gpu) if {
	gpu.kind == "switch"
	lib.gpu_revocation_good(gpu)
}

# ---------- what is not proven: of these two checks the relying party may write down why it leaves them out, no others

may_be_left_out := {"platform_tcb", "telemetry_baseline"}

unchecked contains entry if some entry in lib.excused(may_be_left_out)

deny contains d if some d in lib.unproven_denials(unchecked, may_be_left_out)

# ---------- worth saying, and no reason to refuse

warn contains w if some w in lib.remarks
