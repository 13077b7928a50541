# Tests of the policy bare_metal_tpm_h100: what it asks of a host, and that it says whom it trusts.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.bare_metal_tpm_h100

# The document with members replaced: an object of JSON pointers and values.
changed(document, values) := json.patch(document, [{"op": "replace", "path": path, "value": value} | some path, value in values])

# The codes that the policy denies a changed good document with.
denied(values) := found if {
	found := {d.code | some d in policy.deny} with input as changed(good.input, values) with data.reference as good.reference
}

test_admits_its_host if {
	policy.allow with input as good.input with data.reference as good.reference
	policy.deny == set() with input as good.input with data.reference as good.reference
}

test_says_that_the_host_is_trusted if {
	said := {w.code | some w in policy.warn} with input as good.input with data.reference as good.reference
	said == {"HOST_TRUSTED"}
	entries := policy.unchecked with input as good.input with data.reference as good.reference
	{entry.check | some entry in entries} == {"host_binding", "telemetry_baseline"}
}

test_needs_no_reason_for_the_host if {
	bare := json.patch(good.reference, [{"op": "remove", "path": "/unchecked/host_binding"}])
	policy.allow with input as good.input with data.reference as bare
}

test_denies_other_machines if {
	cloud := examples.azure_snp_h100
	found := {d.code | some d in policy.deny} with input as cloud.input with data.reference as cloud.reference
	found == {"PLATFORM_CLASS"}
	not policy.allow with input as cloud.input with data.reference as cloud.reference
}

test_denies_a_tpm_whose_maker_vouches_for_nothing if denied({"/platform/kind": "tpm-pinned-ak"}) == {"PLATFORM_CLASS"}

test_denies_what_every_policy_denies if denied({"/gpus/8/signed_locked": false}) == {"GPU_MODE"}

test_denies_no_gpu if "GPU_MISSING" in denied({"/gpus": []})

test_denies_a_gpu_without_reference_values if denied({"/gpus/3/reference": "absent"}) == {"GPU_REFERENCE_ABSENT"}

test_denies_a_gpu_of_software if denied({"/gpus/0/platform": "insecure-emulated"}) == {"PLATFORM_EMULATED"}

test_denies_another_gpu if denied({"/gpus/7/architecture": "GB100"}) == {"GPU_ARCH"}

test_takes_no_reason_for_the_boot if {
	written := json.patch(good.reference, [{"op": "add", "path": "/unchecked/boot_reference", "value": "we know what it booted"}])
	document := changed(good.input, {"/platform/boot_reference": "absent"})
	found := {d.message | some d in policy.deny} with input as document with data.reference as written
	found == {"boot_reference is not proven"}
}

test_obliges_where_it_is_in_doubt if {
	duties := {o.kind | some o in policy.obligations} with input as changed(good.input, {"/weights/spot_check/status": "not_issued"})
	duties == {"spot_check"}
}

test_repeats_what_was_noticed if {
	said := {w.code | some w in policy.warn} with input as changed(good.input, {"/gap/held_windows": 1})
	said == {"HOST_TRUSTED", "WINDOW_HELD"}
}
