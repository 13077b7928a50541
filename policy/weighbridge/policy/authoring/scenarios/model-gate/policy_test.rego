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

# What the policy denies of a document. What is yours is set here: tests go on when you change data.json.
codes(document) := found if {
	found := {d.code | some d in policy.deny} with input as document
		with data.reference as good.reference
		with data.author.tenants as ["acme"]
		with data.author.models as ["example-8b-instruct"]
}

# Whether it allows a document.
allowed(document) if {
	policy.allow with input as document
		with data.reference as good.reference
		with data.author.tenants as ["acme"]
		with data.author.models as ["example-8b-instruct"]
}

test_admits_a_good_host if {
	codes(good.input) == set()
	allowed(good.input)
}

test_says_what_was_left_out if {
	checks := {entry.check | some entry in policy.unchecked} with input as good.input with data.reference as good.reference
	checks == {"platform_tcb", "telemetry_baseline"}
}

test_refuses_what_was_left_out_without_a_reason if {
	document := changed("/platform/secure_boot", "unproven")
	not allowed(document)
	codes(document) == {"UNPROVEN"}
}

test_refuses_an_emulated_platform if {
	codes(changed("/platform/name", "insecure-emulated")) == {"PLATFORM_EMULATED"}
}

test_refuses_an_emulated_gpu if {
	codes(changed("/gpus/0/platform", "insecure-emulated")) == {"PLATFORM_EMULATED"}
}

test_refuses_another_tenant if {
	codes(changed("/session/tenant", "somebody else")) == {"NOT_OUR_TENANT"}
}

test_refuses_a_model_that_was_not_released if {
	found := {d.code | some d in policy.deny} with input as good.input
		with data.reference as good.reference
		with data.author.tenants as ["acme"]
		with data.author.models as ["another-model"]
	found == {"MODEL_NOT_RELEASED"}
}

test_repeats_what_was_found if {
	document := changed("/gap/held_windows", 2)
	found := {w.code | some w in policy.warn} with input as document with data.reference as good.reference
	found == {"WINDOW_HELD"}
}
