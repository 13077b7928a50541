# Only models whose owner vouches for them, and that somebody independent evaluated, not long ago.
#
# The owner signs reference sets (weighbridge model sign), with the evaluators' statements in them. A statement is known
# by its type, its issuer and its date, and by nothing of what it says: demand a type that its issuer signs only for
# what you accept. `weighbridge policy docs` lists what a rule can look at.
package weighbridge.policy

import data.weighbridge.lib
import rego.v1

# Nothing is admitted unless a rule below says so.
default allow := false

# Admitted is a window that nothing is said against.
allow if count(deny) == 0

# ---------- what every policy demands

# Fresh evidence, known GPUs, weights as declared. Leave this rule in: the library goes on growing.
deny contains d if some d in lib.always

# ---------- genuine hardware only

# Nothing emulated, no generation of processors that is known to be broken, no GPU in development mode.
deny contains d if some d in lib.platform_denials

# ---------- what is not proven needs a reason in the reference values, which then stands in every verdict

unchecked contains entry if some entry in lib.excused(lib.checks)

deny contains d if some d in lib.unproven_denials(unchecked, lib.checks)

# ---------- the model: its owner's, and evaluated; data.json says who and how recently

deny contains d if {
	some model in input.weights.declared
	not owned(model)
	d := lib.denial(
		"MODEL_NOT_OWNED", null, "no set of the model's owner accepts it now",
		lib.field(data.author, "owner"), model.name, "ask its owner for a newer set",
	)
}

owned(model) if lib.owned(model, data.author.owner)

deny contains d if {
	some model in input.weights.declared
	some wanted in data.author.evaluations
	not evaluated(model, wanted)
	type := lib.field(wanted, "type")
	terms := [type, lib.field(wanted, "issuer"), lib.field(wanted, "days")]
	message := sprintf("no statement of %v by %v within %v days", terms)
	d := lib.denial("NOT_EVALUATED", null, message, type, model.name, "have it evaluated, and its set signed anew")
}

evaluated(model, wanted) if lib.statement_within(model, wanted.type, wanted.issuer, wanted.days)

# A list that is empty would demand nothing.
deny contains d if {
	not some_evaluation
	d := lib.denial("NOT_EVALUATED", null, "data.json demands no evaluation at all", "at least 1", 0, null)
}

some_evaluation if count(data.author.evaluations) > 0

# The host shows now and then that it has the model's bytes. Where it could not be asked, say so in the next window.
deny contains d if {
	not lib.spot_answered
	d := lib.denial(
		"SPOT_POOL_EMPTY", null, "a spot check was due, and could not be made",
		"passed or not_due", input.weights.spot_check.status, "the model's owner has more: weighbridge spot import",
	)
}

# ---------- worth saying, and no reason to refuse

warn contains w if some w in lib.remarks
