# Who may use our models: genuine hosts of our own tenants that serve a model which we released, and nothing else.
#
# For a verifier that stands between clients and hosts and opens the gate to them. Change what is yours in data.json,
# and add rules below; `weighbridge policy docs` lists everything that a rule can look at.
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

# ---------- ours: data.json names the tenants and the models

deny contains d if {
	not our_tenant
	d := lib.denial(
		"NOT_OUR_TENANT", null, "the session is not of one of our tenants",
		lib.field(data.author, "tenants"), input.session.tenant, "tenants are listed in data.json",
	)
}

our_tenant if input.session.tenant in data.author.tenants

deny contains d if {
	some model in input.weights.declared
	not released(model)
	d := lib.denial(
		"MODEL_NOT_RELEASED", null, "the model is not one that we released",
		lib.field(data.author, "models"), model.name, "models are listed in data.json, by the names of the reference values",
	)
}

# By the relying party's own name for what was measured, not by the one that the host gives it.
released(model) if data.reference.models[model.manifest].name in data.author.models

# ---------- worth saying, and no reason to refuse

warn contains w if some w in lib.remarks
