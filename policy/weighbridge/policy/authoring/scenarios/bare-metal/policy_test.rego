# Tests of policy.rego: `weighbridge policy test .`
#
# Begin with a document that is admitted, change one thing, and say what must come of it.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.bare_metal_tpm_h100

# The document with one member replaced.
changed(path, value) := json.patch(good.input, [{"op": "replace", "path": path, "value": value}])

# What the policy denies of a document. What is yours is set here: tests go on when you change data.json.
codes(document) := found if {
	found := {d.code | some d in policy.deny} with input as document
		with data.reference as good.reference
		with data.author.gpus as 8
}

# Whether it allows a document.
allowed(document) if {
	policy.allow with input as document
		with data.reference as good.reference
		with data.author.gpus as 8
}

test_admits_a_good_host if {
	codes(good.input) == set()
	allowed(good.input)
}

test_says_that_the_host_is_trusted if {
	found := {w.code | some w in policy.warn} with input as good.input with data.reference as good.reference
	found == {"HOST_TRUSTED"}
	checks := {entry.check | some entry in policy.unchecked} with input as good.input with data.reference as good.reference
	checks == {"host_binding", "telemetry_baseline"}
}

test_refuses_a_pinned_key if {
	codes(changed("/platform/kind", "tpm-pinned-ak")) == {"NO_OWN_TPM"}
}

test_refuses_a_host_that_lost_a_gpu if {
	codes(json.patch(good.input, [{"op": "remove", "path": "/gpus/0"}])) == {"GPUS_INCOMPLETE"}
}

test_refuses_an_emulated_gpu if {
	document := changed("/gpus/3/platform", "insecure-emulated")
	found := {[d.code, d.device] | some d in policy.deny} with input as document
		with data.reference as good.reference
		with data.author.gpus as 8
	found == {["PLATFORM_EMULATED", good.input.gpus[3].identity]}
}

test_refuses_what_nothing_excuses if {
	codes(changed("/attester_code/status", "unproven")) == {"UNPROVEN"}
}

test_repeats_what_was_found if {
	document := changed("/gap/held_windows", 2)
	found := {w.code | some w in policy.warn} with input as document with data.reference as good.reference
	found == {"HOST_TRUSTED", "WINDOW_HELD"}
}
