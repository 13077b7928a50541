# Our own machines: hosts with a TPM of their own and all their GPUs, in a building whose people we trust.
#
# An EK certificate proves a TPM. It does not prove that it stands beside these GPUs: whoever holds the host could put
# another machine's quote beside them. This policy says so in every verdict, and asks for everything else.
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

# ---------- a TPM of its own, whose maker vouches for it

deny contains d if {
	not own_tpm
	d := lib.denial(
		"NO_OWN_TPM", null, "the host has no TPM of its own whose maker vouches for it",
		"tpm-ek-credential of a genuine TPM", [input.platform.kind, input.platform.name], null,
	)
}

own_tpm if {
	input.platform.kind == "tpm-ek-credential"
	input.platform.name == "tpm"
	input.platform.state_held_by == "tpm"
}

warn contains w if {
	own_tpm
	w := {"code": "HOST_TRUSTED", "message": "host trusted: nothing proves that this TPM stands beside these GPUs"}
}

# ---------- every GPU that the machine has: data.json says how many

deny contains d if {
	not complete
	d := lib.denial(
		"GPUS_INCOMPLETE", null, "the machine does not show all of its GPUs",
		lib.field(data.author, "gpus"), count(gpus), "look for the missing one: weighbridge-attester doctor",
	)
}

gpus := [gpu | some gpu in input.gpus; gpu.kind == "gpu"]

complete if count(gpus) == data.author.gpus

# Nothing emulated, no GPU in development mode.
deny contains d if some d in lib.platform_denials

# ---------- what is not proven: of these two checks the relying party may write down why it leaves them out, no others

may_be_left_out := {"host_binding", "telemetry_baseline"}

unchecked contains entry if some entry in lib.excused(may_be_left_out)

deny contains d if some d in lib.unproven_denials(unchecked, may_be_left_out)

# ---------- worth saying, and no reason to refuse

warn contains w if some w in lib.remarks
