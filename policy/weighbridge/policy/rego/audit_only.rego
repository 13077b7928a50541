# The policy for auditors: says of every window what `production` would have against it, and admits none.
#
# Proves nothing to anybody who lets somebody in by it: `allow` is never true, and every window has the one denial
# AUDIT_ONLY, so that no gate opens, no token is issued and no exit status is 0, whatever a window shows. All else that
# it sees is a warning, with the code that `production` would deny by; what a written reason leaves out is in `unchecked`.
# What no policy can see past (weighbridge policy invariants) is denied beside it.
# Read it with `weighbridge verify bundle`, `policy replay` and `policy explain`.
package weighbridge.policy

import data.weighbridge.lib
import data.weighbridge.lib.always
import data.weighbridge.lib.checks
import data.weighbridge.lib.host_trusted
import data.weighbridge.lib.platform_denials
import data.weighbridge.lib.remarks
import rego.v1

# Never anything else: an audit is no admission.
default allow := false

deny contains d if {
	seen := sprintf("%v things that production would deny", [count(against)])
	d := lib.denial("AUDIT_ONLY", null, "this policy observes, and admits nothing", null, seen, "they are among the warnings; to admit, judge by another policy")
}

# What production would deny.
against := (always | platform_denials) | lib.unproven_denials(unchecked, checks)

unchecked contains entry if some entry in lib.excused(checks)

warn contains w if {
	some d in against
	w := {"code": d.code, "device": d.device, "message": d.message}
}

warn contains w if {
	host_trusted
	w := {"code": "HOST_TRUSTED", "message": "nothing proves that the TPM stands beside these GPUs"}
}

warn contains w if some w in remarks
