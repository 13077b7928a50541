# Tests of the policy azure_snp_h100: what it takes no reason for.
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

test_admits_its_machine if {
	policy.allow with input as good.input with data.reference as good.reference
	policy.deny == set() with input as good.input with data.reference as good.reference
}

test_denies_other_machines if {
	host := examples.bare_metal_tpm_h100
	found := {d.code | some d in policy.deny} with input as host.input with data.reference as host.reference
	found == {"PLATFORM_CLASS", "UNPROVEN"}
	not policy.allow with input as host.input with data.reference as host.reference
}

test_denies_what_every_policy_denies if denied({"/window/freshness": "held"}) == {"WINDOW_HELD"}

test_denies_no_gpu if "GPU_MISSING" in denied({"/gpus": []})

test_denies_a_gpu_without_reference_values if "GPU_REFERENCE_ABSENT" in denied({"/gpus/0/reference": "absent"})

test_denies_a_broken_generation if denied({"/platform/tee/product": "Milan"}) == {"PLATFORM_WEAK"}

test_denies_another_gpu if denied({"/gpus/0/architecture": "GB100"}) == {"GPU_ARCH"}

test_denies_a_gpu_that_only_the_relying_party_knows if {
	denied({"/gpus/0/manifests": [], "/gpus/0/reference_by": "relying-party"}) == {"GPU_REFERENCE_ABSENT"}
}

test_denies_a_gpu_that_signs_no_mode if denied({"/gpus/0/signed_feature": null}) == {"GPU_MODE"}

test_admits_several_gpus_and_their_switches if {
	devices := examples.bare_metal_tpm_h100.input.gpus
	denied({"/gpus": devices}) == set()
}

test_takes_no_reason_for_the_host if {
	written := json.patch(good.reference, [{"op": "add", "path": "/unchecked/host_binding", "value": "we trust the cloud anyway"}])
	document := changed(good.input, {"/platform/host_binding": "unproven", "/platform/boot_reference": "absent"})
	found := {d.message: d.hint | some d in policy.deny} with input as document with data.reference as written
	found["host_binding is not proven"] == "prove it: the policy takes no reason for leaving it out"
}

test_takes_no_reason_for_revocation if {
	written := json.patch(good.reference, [{"op": "add", "path": "/unchecked/gpu_revocation", "value": "nobody answers today"}])
	document := changed(good.input, {"/gpus/0/revocation": "stale"})
	found := {d.code | some d in policy.deny} with input as document with data.reference as written
	found == {"GPU_REVOCATION_UNKNOWN"}
}

test_takes_reasons_for_the_rest if {
	entries := policy.unchecked with input as good.input with data.reference as good.reference
	{entry.check | some entry in entries} == {"platform_tcb", "telemetry_baseline"}
	denied({"/attester_code/status": "unproven"}) == {"UNPROVEN"}
}

test_repeats_what_was_noticed if {
	said := {w.code | some w in policy.warn} with input as changed(good.input, {"/gap/held_windows": 1})
	said == {"WINDOW_HELD"}
}

test_obliges_where_it_is_in_doubt if {
	duties := {o.kind | some o in policy.obligations} with input as changed(good.input, {"/gpus/0/revocation": "stale"})
	duties == {"reattest"}
}
