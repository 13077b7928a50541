# The policy for confidential machines on Azure: AMD SEV-SNP, one or more H100, for tenants who do not trust the host.
#
# Proves, of the window it admits: a processor of AMD's of a sound generation runs a guest whose first code, Microsoft's
# paravisor, is among the reference values, keeps the TPM that quoted, and is not known to be revoked; every GPU is an
# H100 with the measurements that NVIDIA's own manifests name, in a confidential mode, nothing of it revoked; the loaded
# weights are the declared ones and known to the relying party. No reason in reference.unchecked is taken for leaving
# out `host_binding` or `gpu_revocation`: of this platform both can be shown.
# Does not prove that the GPU is in this very machine: a quote and a report are bound to the same window, and whoever
# holds both could hold them in two places. Nor what its reasons in `unchecked` leave out.
package weighbridge.policy

import data.weighbridge.lib
import data.weighbridge.lib.always
import data.weighbridge.lib.doubts
import data.weighbridge.lib.genuine
import data.weighbridge.lib.gpus
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
	platform_class == "azure_snp"
}

deny contains d if {
	not sound
	some d in always
}

deny contains d if {
	not genuine
	some d in platform_denials
}

deny contains d if some d in lib.class_denials("azure_snp")

# ---------- the GPUs

deny contains d if some d in lib.architecture_denials("GH100")

deny contains d if {
	some gpu in gpus
	not lib.gpu_vouched_by_maker(gpu)
	d := lib.denial("GPU_REFERENCE_ABSENT", lib.field(gpu, "identity"), "NVIDIA's manifests do not vouch for the GPU", "manifests", lib.field(gpu, "reference_by"), "get them with weighbridge collateral")
}

deny contains d if {
	some gpu in gpus
	not confidential(gpu)
	d := lib.denial("GPU_MODE", lib.field(gpu, "identity"), "the GPU does not sign that it has a confidential mode", "spt, mpt or ppcie", lib.field(gpu, "signed_feature"), "a driver since R570 says so")
}

# A driver that reports none is too old for this policy; a switch has none to report, and is locked.
confidential(gpu) if gpu.signed_feature in {"spt", "mpt", "ppcie"}

confidential(gpu) if gpu.kind == "switch"

# ---------- what is not proven

# The checks that a written reason may leave out.
leave := {"attester_code", "boot_reference", "load_binding", "platform_tcb", "secure_boot", "telemetry_baseline"}

unchecked contains entry if some entry in lib.excused(leave)

deny contains d if some d in lib.unproven_denials(unchecked, leave)

warn contains w if some w in remarks

obligations contains o if some o in doubts
