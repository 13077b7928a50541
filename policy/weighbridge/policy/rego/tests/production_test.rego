# Tests of the policy production: what it admits, what it denies beside the library, and what reasons do.
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

test_admits_a_confidential_machine if {
	policy.allow with input as good.input with data.reference as good.reference
	policy.deny == set() with input as good.input with data.reference as good.reference
}

test_admits_a_host_with_a_tpm_of_its_own_by_reasons if {
	host := examples.bare_metal_tpm_h100
	policy.allow with input as host.input with data.reference as host.reference
	left_out := {entry.check | some entry in policy.unchecked} with input as host.input with data.reference as host.reference
	left_out == {"host_binding", "telemetry_baseline"}
}

test_denies_what_every_policy_denies if denied({"/gpus/0/revocation": "revoked"}) & {"GPU_REVOKED"} == {"GPU_REVOKED"}

test_denies_no_gpu if "GPU_MISSING" in denied({"/gpus": []})

test_denies_a_gpu_without_reference_values if denied({"/gpus/0/reference": "absent"}) == {"GPU_REFERENCE_ABSENT"}

test_denies_without_reference_models if {
	bare := json.patch(good.reference, [{"op": "replace", "path": "/models", "value": {}}])
	found := {d.code | some d in policy.deny} with input as good.input with data.reference as bare
	found == {"REFERENCE_ABSENT"}
}

test_denies_what_is_emulated if {
	emulated := examples.emulated
	found := {d.code | some d in policy.deny} with input as emulated.input with data.reference as emulated.reference
	"PLATFORM_EMULATED" in found
	not policy.allow with input as emulated.input with data.reference as emulated.reference
}

test_denies_a_broken_generation if denied({"/platform/tee/product": "Milan"}) == {"PLATFORM_WEAK"}

test_denies_what_has_neither_proof_nor_reason if denied({"/platform/secure_boot": "unproven"}) == {"UNPROVEN"}

test_says_what_a_reason_leaves_out if {
	entries := policy.unchecked with input as good.input with data.reference as good.reference
	{entry.check | some entry in entries} == {"platform_tcb", "telemetry_baseline"}
}

# ---------- the physical record

measured := examples.in_baseline

# The codes that the policy denies it with where the record of its GPU has another word.
denied_for(word) := found if {
	changes := {"/telemetry/verdict": word, "/telemetry/devices/0/verdict": word}
	found := {d.code | some d in policy.deny} with input as changed(measured.input, changes)
		with data.reference as measured.reference
}

test_admits_a_record_in_its_baseline_and_leaves_nothing_out_for_it if {
	policy.allow with input as measured.input with data.reference as measured.reference
	entries := policy.unchecked with input as measured.input with data.reference as measured.reference
	{entry.check | some entry in entries} == {"platform_tcb"}
}

test_denies_for_the_record_by_its_word if {
	denied_for("in_baseline") == set()
	denied_for("unusable") == {"TELEMETRY_UNUSABLE"}
	denied_for("no_baseline") == {"TELEMETRY_NO_BASELINE"}
	denied_for("out_of_baseline") == {"TELEMETRY_OUT_OF_BASELINE"}
	denied_for("implausible") == {"TELEMETRY_IMPLAUSIBLE"}
}

# A reason excuses that nothing is known, and never what contradicts.
test_a_reason_does_not_excuse_a_contradiction if {
	denied({"/telemetry/verdict": "unusable"}) == set()
	denied({"/telemetry/verdict": "out_of_baseline"}) == {"TELEMETRY_OUT_OF_BASELINE"}
	denied({"/telemetry/verdict": "implausible"}) == {"TELEMETRY_IMPLAUSIBLE"}
}

test_denies_a_recording_played_again if {
	played := changed(measured.input, {"/telemetry/sources/0/platform": "insecure-emulated"})
	found := {d.code | some d in policy.deny} with input as played with data.reference as measured.reference
	found == {"PLATFORM_EMULATED"}
}

test_repeats_what_was_noticed if {
	said := {w.code | some w in policy.warn} with input as changed(good.input, {"/gap/held_windows": 1})
	said == {"WINDOW_HELD"}
}

test_obliges_where_it_is_in_doubt if {
	document := changed(good.input, {"/weights/spot_check/status": "not_issued"})
	duties := {o.kind | some o in policy.obligations} with input as document
	duties == {"spot_check"}
	policy.allow with input as document with data.reference as good.reference
}
