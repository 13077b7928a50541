# Tests of policy.rego: `weighbridge policy test .`
#
# Begin with a document that is admitted, change one thing, and say what must come of it.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.azure_snp_h100

# The document with one member replaced.
changed(path, value) := json.patch(good.input, [{"op": "replace", "path": path, "value": value}])

# What the policy denies of a document.
codes(document) := found if {
	found := {d.code | some d in policy.deny} with input as document
		with data.reference as good.reference
}

# Whether it allows a document.
allowed(document) if {
	policy.allow with input as document
		with data.reference as good.reference
}

test_admits_a_good_machine if {
	codes(good.input) == set()
	allowed(good.input)
}

test_says_what_was_left_out if {
	checks := {entry.check | some entry in policy.unchecked} with input as good.input with data.reference as good.reference
	checks == {"platform_tcb", "telemetry_baseline"}
}

test_refuses_a_host_of_bare_metal if {
	metal := examples.bare_metal_tpm_h100
	not policy.allow with input as metal.input with data.reference as metal.reference
	found := {d.code | some d in policy.deny} with input as metal.input with data.reference as metal.reference
	"NOT_CONFIDENTIAL" in found
}

test_refuses_a_broken_generation if {
	codes(changed("/platform/tee/product", "Milan")) == {"PLATFORM_WEAK"}
}

test_refuses_an_unknown_image if {
	codes(changed("/platform/boot_reference", "absent")) == {"IMAGE_UNKNOWN", "UNPROVEN"}
}

test_refuses_a_gpu_outside_of_confidential_mode if {
	document := changed("/gpus/0/signed_feature", null)
	found := {[d.code, d.device] | some d in policy.deny} with input as document with data.reference as good.reference
	found == {["GPU_NOT_FIT", good.input.gpus[0].identity]}
}

test_takes_switches_for_what_they_are if {
	metal := examples.bare_metal_tpm_h100
	found := {d.code | some d in policy.deny} with input as metal.input with data.reference as metal.reference
	not "GPU_NOT_FIT" in found
}

test_refuses_what_nothing_excuses if {
	codes(changed("/attester_code/status", "unproven")) == {"UNPROVEN"}
}

test_repeats_what_was_found if {
	document := changed("/gap/held_windows", 2)
	found := {w.code | some w in policy.warn} with input as document with data.reference as good.reference
	found == {"WINDOW_HELD"}
}
