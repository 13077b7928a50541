# Tests of the policy insecure_development: it admits what is emulated and unproven, says so, and denies the rest.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.emulated

# The document with members replaced: an object of JSON pointers and values.
changed(document, values) := json.patch(document, [{"op": "replace", "path": path, "value": value} | some path, value in values])

# The codes that the policy denies a changed good document with.
denied(values) := found if {
	found := {d.code | some d in policy.deny} with input as changed(good.input, values) with data.reference as good.reference
}

test_admits_what_is_emulated if {
	policy.allow with input as good.input with data.reference as good.reference
	policy.deny == set() with input as good.input with data.reference as good.reference
}

test_admits_genuine_machines if {
	host := examples.bare_metal_tpm_h100
	policy.allow with input as host.input with data.reference as host.reference
}

# The checks that it says it leaves out.
left_out(document) := found if {
	found := {entry.check | some entry in policy.unchecked} with input as document with data.reference as good.reference
}

test_says_what_it_leaves_out if {
	left_out(good.input) == {
		"attester_code", "boot_reference", "gpu_revocation", "host_binding", "load_binding", "platform", "secure_boot",
		"telemetry_baseline",
	}
	reasons := {entry.reason | some entry in policy.unchecked} with input as good.input
	unsaid := [reason | some reason in reasons; not startswith(reason, "insecure: ")]
	unsaid == []
}

test_says_each_emulated_part if {
	genuine := examples.azure_snp_h100.input
	found := left_out(genuine)
	not "platform" in found
	"platform" in left_out(changed(genuine, {"/platform/name": "insecure-emulated"}))
	"platform" in left_out(changed(genuine, {"/gpus/0/platform": "insecure-emulated"}))
	"platform" in left_out(changed(genuine, {"/telemetry/sources/0/platform": "insecure-emulated"}))
}

test_denies_what_every_policy_denies if denied({"/gpus/0/revocation": "revoked"}) == {"GPU_REVOKED"}

test_denies_no_gpu if "GPU_MISSING" in denied({"/gpus": []})

test_denies_a_gpu_without_reference_values if denied({"/gpus/0/reference": "absent"}) == {"GPU_REFERENCE_ABSENT"}

test_denies_other_weights if {
	place := {"file": "a", "tensor": null, "kind": "file", "expected": "aa", "got": "bb"}
	denied({"/weights/differences": [place]}) == {"WEIGHTS_MISMATCH"}
}

test_repeats_what_was_noticed if {
	said := {w.code | some w in policy.warn} with input as changed(good.input, {"/gap/held_windows": 1})
	said == {"WINDOW_HELD"}
}
