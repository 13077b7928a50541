# Tests of policy.rego: `weighbridge policy test .`
#
# Begin with a document that is in order, change one thing, and say what must come of it.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.azure_snp_h100

# The document with one member replaced.
changed(path, value) := json.patch(good.input, [{"op": "replace", "path": path, "value": value}])

# What the policy denies of a document, beside that it admits none.
seen(document) := found - {"AUDIT_ONLY"} if {
	found := {d.code | some d in policy.deny} with input as document with data.reference as good.reference
}

# What it warns of. What is yours is set here: tests go on when you change data.json.
warned(document) := found if {
	found := {w.code | some w in policy.warn} with input as document
		with data.reference as good.reference
		with data.author.tenant as "acme"
}

test_admits_nothing if {
	not policy.allow with input as good.input with data.reference as good.reference
	found := {d.code | some d in policy.deny} with input as good.input with data.reference as good.reference
	found == {"AUDIT_ONLY"}
}

test_sees_a_revoked_gpu if {
	seen(changed("/gpus/0/revocation", "revoked")) == {"GPU_REVOCATION_UNKNOWN", "GPU_REVOKED"}
}

test_sees_what_is_not_proven if {
	seen(changed("/attester_code/status", "unproven")) == {"UNPROVEN"}
}

test_sees_what_was_left_out_with_a_reason if {
	checks := {entry.check | some entry in policy.unchecked} with input as good.input with data.reference as good.reference
	checks == {"platform_tcb", "telemetry_baseline"}
}

test_sees_another_tenant if {
	warned(changed("/session/tenant", "somebody else")) == {"OTHER_TENANT"}
}

test_repeats_what_was_found if {
	warned(changed("/gap/held_windows", 2)) == {"WINDOW_HELD"}
}
