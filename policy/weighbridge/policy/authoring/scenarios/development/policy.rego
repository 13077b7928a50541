# INSECURE, for development: admits emulated platforms and everything unproven, and says so in every verdict.
#
# For a desk without a TPM or a GPU. Weights, reference values, freshness and devices are judged as in earnest, so that
# what you develop meets the same refusals. Never load it where anybody relies on the answer.
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

# ---------- not for anybody else's sessions, so that it cannot be taken for a policy of production

deny contains d if {
	not development
	d := lib.denial(
		"NOT_DEVELOPMENT", null, "this policy is for development, and the session is another tenant's",
		lib.field(data.author, "tenant"), input.session.tenant, "name your own tenant in data.json",
	)
}

development if input.session.tenant == data.author.tenant

# ---------- everything else is left out, and every verdict says so

unchecked contains entry if {
	some check in lib.unproven
	entry := {"check": check, "reason": "insecure: a policy for development leaves it out"}
}

unchecked contains entry if {
	not lib.genuine_platform
	entry := {"check": "platform", "reason": "insecure: a policy for development admits emulated platforms"}
}

# ---------- worth saying, and no reason to refuse

warn contains w if some w in lib.remarks
