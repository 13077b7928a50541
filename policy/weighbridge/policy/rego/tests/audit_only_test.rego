# Tests of the policy audit_only: it admits nothing, and sees what production denies.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.azure_snp_h100

# The document with members replaced: an object of JSON pointers and values.
changed(document, values) := json.patch(document, [{"op": "replace", "path": path, "value": value} | some path, value in values])

# The codes that the policy denies a changed good document with.
denied(values) := found if {
	found := {d.code | some d in policy.deny} with input as changed(good.input, values) with data.reference as good.reference
}

# What it warns of.
warned(document, reference) := found if {
	found := {w.code | some w in policy.warn} with input as document with data.reference as reference
}

test_admits_nothing if {
	every example in [examples.azure_snp_h100, examples.bare_metal_tpm_h100, examples.emulated] {
		not policy.allow with input as example.input with data.reference as example.reference
		found := {d.code | some d in policy.deny} with input as example.input with data.reference as example.reference
		found == {"AUDIT_ONLY"}
	}
}

test_has_one_denial_whatever_it_sees if denied({"/gpus/0/revocation": "revoked", "/platform/tee/product": "Milan"}) == {"AUDIT_ONLY"}

test_counts_what_it_sees if {
	document := changed(good.input, {"/gpus/0/reference": "absent"})
	found := {d.got | some d in policy.deny} with input as document with data.reference as good.reference
	found == {"1 things that production would deny"}
}

test_sees_nothing_against_a_good_machine if warned(good.input, good.reference) == set()

test_sees_what_every_policy_denies if {
	warned(changed(good.input, {"/gpus/0/revocation": "revoked"}), good.reference) == {"GPU_REVOCATION_UNKNOWN", "GPU_REVOKED"}
}

test_sees_no_gpu if "GPU_MISSING" in warned(changed(good.input, {"/gpus": []}), good.reference)

test_sees_a_broken_generation if warned(changed(good.input, {"/platform/tee/product": "Milan"}), good.reference) == {"PLATFORM_WEAK"}

test_sees_what_is_not_proven if {
	warned(changed(good.input, {"/platform/secure_boot": "unproven"}), good.reference) == {"UNPROVEN"}
}

test_sees_that_the_host_is_trusted if {
	host := examples.bare_metal_tpm_h100
	warned(host.input, host.reference) == {"HOST_TRUSTED"}
}

test_repeats_what_was_noticed if warned(changed(good.input, {"/gap/held_windows": 1}), good.reference) == {"WINDOW_HELD"}

test_says_what_a_reason_leaves_out if {
	entries := policy.unchecked with input as good.input with data.reference as good.reference
	{entry.check | some entry in entries} == {"platform_tcb", "telemetry_baseline"}
}
