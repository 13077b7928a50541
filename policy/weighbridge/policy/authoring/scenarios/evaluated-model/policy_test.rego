# Tests of policy.rego: `weighbridge policy test .`
#
# Begin with a document that is admitted, change one thing, and say what must come of it. Here the reference values are
# made first: what the owner's set says of the model, and who evaluated it. The present, in tests, is when the examples
# were received.
package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

example := examples.azure_snp_h100

manifest := example.input.weights.declared[0].manifest

statement := {
	"type": "https://example.org/shutdown-evaluation/v1",
	"issuer": "Evaluation Lab",
	"date": "2026-11-01T00:00:00Z",
	"digest": "00",
}

# Reference values in which the owner accepts the model, with these statements.
reference(statements) := object.union(example.reference, {"models": {manifest: {
	"name": "example-8b-instruct",
	"owner": "Example Models",
	"set": "00",
	"not_before": "2026-06-01T00:00:00Z",
	"not_after": "2027-06-01T00:00:00Z",
	"statements": statements,
}}})

good := reference([statement])

# What is yours is set here: tests go on when you change data.json.
evaluations := [{"type": "https://example.org/shutdown-evaluation/v1", "issuer": "Evaluation Lab", "days": 90}]

# What the policy denies of a document, by these reference values.
codes(document, values) := found if {
	found := {d.code | some d in policy.deny} with input as document
		with data.reference as values
		with data.author.owner as "Example Models"
		with data.author.evaluations as evaluations
}

changed(path, value) := json.patch(example.input, [{"op": "replace", "path": path, "value": value}])

test_admits_an_evaluated_model if {
	codes(example.input, good) == set()
	policy.allow with input as example.input
		with data.reference as good
		with data.author.owner as "Example Models"
		with data.author.evaluations as evaluations
}

test_says_what_was_left_out if {
	checks := {entry.check | some entry in policy.unchecked} with input as example.input with data.reference as good
	checks == {"platform_tcb", "telemetry_baseline"}
}

test_refuses_what_was_left_out_without_a_reason if {
	codes(changed("/platform/secure_boot", "unproven"), good) == {"UNPROVEN"}
}

test_refuses_emulated_devices if {
	codes(changed("/platform/name", "insecure-emulated"), good) == {"PLATFORM_EMULATED"}
	codes(changed("/gpus/0/platform", "insecure-emulated"), good) == {"PLATFORM_EMULATED"}
}

test_refuses_a_model_of_nobody if {
	codes(example.input, example.reference) == {"MODEL_NOT_OWNED", "NOT_EVALUATED"}
}

test_refuses_a_model_without_evaluation if {
	codes(example.input, reference([])) == {"NOT_EVALUATED"}
}

test_refuses_an_old_evaluation if {
	old := object.union(statement, {"date": "2026-08-01T00:00:00Z"})
	codes(example.input, reference([old])) == {"NOT_EVALUATED"}
}

test_refuses_an_evaluation_by_somebody_else if {
	other := object.union(statement, {"issuer": "Somebody Else"})
	codes(example.input, reference([other])) == {"NOT_EVALUATED"}
}

test_refuses_to_demand_nothing if {
	denied := {d.code | some d in policy.deny} with input as example.input
		with data.reference as good
		with data.author.owner as "Example Models"
		with data.author.evaluations as []
	denied == {"NOT_EVALUATED"}
}

test_refuses_an_empty_pool if {
	codes(changed("/weights/spot_check/status", "not_issued"), good) == {"SPOT_POOL_EMPTY"}
}

test_repeats_what_was_found if {
	document := changed("/gap/held_windows", 2)
	found := {w.code | some w in policy.warn} with input as document with data.reference as good
	found == {"WINDOW_HELD"}
}
