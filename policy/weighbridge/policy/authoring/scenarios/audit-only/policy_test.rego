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

# What the policy warns of.
warned(document) := found if {
	found := {w.code | some w in policy.warn} with input as document with data.reference as good.reference
}

test_admits_nothing if {
	not policy.allow with input as good.input with data.reference as good.reference
	found := {d.code | some d in policy.deny} with input as good.input with data.reference as good.reference
	found == {"AUDIT_ONLY"}
}

test_has_nothing_against_a_good_host if {
	warned(good.input) == set()
}

test_sees_a_revoked_gpu if {
	"GPU_REVOKED" in warned(changed("/gpus/0/revocation", "revoked"))
}

test_sees_what_is_not_proven if {
	"UNPROVEN" in warned(changed("/attester_code/status", "unproven"))
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
