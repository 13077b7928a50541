# INSECURE, for development only: admits emulated platforms and everything unproven, and says so in every verdict.
#
# Proves that weights are the declared ones and known, that GPUs have the measurements of their reference, that evidence
# is fresh: these are judged exactly as in production. Does not prove that anything of it is real: whoever has this
# package makes such evidence without a TPM and without a GPU. For trying things out, and for tests; never for a gate.
package weighbridge.policy

import data.weighbridge.lib
import data.weighbridge.lib.always
import data.weighbridge.lib.gpus
import data.weighbridge.lib.remarks
import data.weighbridge.lib.sound
import data.weighbridge.lib.sources
import data.weighbridge.lib.unproven
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	sound
}

# What every policy demands.
deny contains d if {
	not sound
	some d in always
}

unchecked contains entry if {
	some check in unproven
	entry := {"check": check, "reason": "insecure: the policy insecure_development leaves it out"}
}

unchecked contains entry if {
	emulated
	entry := {"check": "platform", "reason": "insecure: the policy insecure_development admits emulated platforms"}
}

emulated if not lib.genuine_platform

emulated if {
	some gpu in gpus
	not lib.genuine_gpu(gpu)
}

emulated if {
	some source in sources
	not lib.genuine_source(source)
}

warn contains w if some w in remarks
