# INSECURE, for development only: admits emulated platforms and everything unproven, and says so in every verdict.
# Weights, references, GPUs and freshness are judged exactly as in production.
package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	lib.schema_known
	lib.lists_present
	lib.fresh
	lib.some_gpu
	lib.some_declared
	lib.weights_equal
}

deny contains d if some d in lib.always

unchecked contains entry if {
	some check in lib.unproven
	entry := {"check": check, "reason": "insecure: the policy insecure_development leaves it out"}
}

unchecked contains entry if {
	emulated
	entry := {"check": "platform", "reason": "insecure: the policy insecure_development admits emulated platforms"}
}

emulated if not lib.genuine_platform

emulated if {
	some gpu in lib.gpus
	not lib.genuine_gpu(gpu)
}

emulated if {
	some source in lib.sources
	not lib.genuine_source(source)
}

warn contains w if some w in lib.remarks
