# The policy for hosts of one's own: a TPM on the board, H100s, and the switches between them. Host trusted.
#
# Proves, of the window it admits: a TPM whose maker vouches for it quoted freshly; the boot registers hold what the
# host's owner accepts, firmware started signed images only and the kernel is locked; every GPU is an H100 with the
# measurements of its reference, and nothing of it is known to be revoked; every switch is locked; the loaded weights are
# the declared ones and known to the relying party. No reason in reference.unchecked is taken for leaving out
# `boot_reference` or `secure_boot`: with a TPM of one's own both can be shown.
# Does not prove that the TPM stands beside these GPUs, nor that nobody reads their memory: an EK certificate proves a
# TPM, not the guest beside the GPU. Whoever runs the host has to be trusted, and every verdict says so, as
# `host_binding` in `unchecked` and as a warning. For others' machines take azure_snp_h100, or production.
package weighbridge.policy

import data.weighbridge.lib
import data.weighbridge.lib.always
import data.weighbridge.lib.doubts
import data.weighbridge.lib.genuine
import data.weighbridge.lib.host_trusted
import data.weighbridge.lib.platform_class
import data.weighbridge.lib.platform_denials
import data.weighbridge.lib.remarks
import data.weighbridge.lib.sound
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	sound
	genuine
	platform_class == "bare_metal_tpm"
}

# What every policy demands.
deny contains d if {
	not sound
	some d in always
}

# Nothing emulated, no GPU in development mode.
deny contains d if {
	not genuine
	some d in platform_denials
}

deny contains d if some d in lib.class_denials("bare_metal_tpm")

deny contains d if some d in lib.architecture_denials("GH100")

# ---------- what is not proven

# The checks that a written reason may leave out; `host_binding` this policy leaves out itself.
leave := {"attester_code", "gpu_revocation", "load_binding", "platform_tcb", "telemetry_baseline"}

unchecked contains entry if some entry in lib.excused(leave)

unchecked contains entry if {
	host_trusted
	entry := {"check": "host_binding", "reason": "host trusted: the policy bare_metal_tpm_h100 takes a TPM's word for its host"}
}

deny contains d if some d in lib.unproven_denials(unchecked, leave)

warn contains w if {
	host_trusted
	w := {"code": "HOST_TRUSTED", "message": "host trusted: nothing proves that this TPM stands beside these GPUs"}
}

warn contains w if some w in remarks

obligations contains o if some o in doubts
