# Tests of policy.rego: `weighbridge policy test .`
#
# Begin with a document that is admitted, change one thing, and say what must come of it.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.emulated

# The document with one member replaced.
changed(path, value) := json.patch(good.input, [{"op": "replace", "path": path, "value": value}])

# What the policy denies of a document. What is yours is set here: tests go on when you change data.json.
codes(document) := found if {
	found := {d.code | some d in policy.deny} with input as document
		with data.reference as good.reference
		with data.author.tenant as "acme"
}

# Whether it allows a document.
allowed(document) if {
	policy.allow with input as document
		with data.reference as good.reference
		with data.author.tenant as "acme"
}

test_admits_an_emulated_host if {
	codes(good.input) == set()
	allowed(good.input)
}

test_says_that_it_is_insecure if {
	checks := {entry.check | some entry in policy.unchecked} with input as good.input with data.reference as good.reference
	"platform" in checks
	"attester_code" in checks
}

test_refuses_other_weights if {
	"REFERENCE_ABSENT" in codes(changed("/weights/declared/0/manifest", "00"))
}

test_refuses_another_tenant if {
	codes(changed("/session/tenant", "somebody else")) == {"NOT_DEVELOPMENT"}
}

test_repeats_what_was_found if {
	document := changed("/gap/held_windows", 2)
	found := {w.code | some w in policy.warn} with input as document with data.reference as good.reference
	found == {"WINDOW_HELD"}
}
