# For auditors: says of every window what a strict policy has against it, and admits none.
#
# Nothing can be opened with it: `allow` is never true, and every window is denied with AUDIT_ONLY, whatever else there
# is. Try it on recorded evidence with `weighbridge policy replay` and `weighbridge policy explain`.
package weighbridge.policy

import data.weighbridge.lib
import rego.v1

# Never anything else: an audit is no admission.
default allow := false

deny contains d if {
	d := lib.denial("AUDIT_ONLY", null, "this policy only observes", null, null, "whatever else is denied is what it saw")
}

# ---------- what every policy demands

# Fresh evidence, known GPUs, weights as declared. Leave this rule in: the library goes on growing.
deny contains d if some d in lib.always

# ---------- what is not proven, and for which the relying party wrote no reason

unchecked contains entry if {
	some check in lib.unproven
	reason := lib.reason(check)
	entry := {"check": check, "reason": reason}
}

excused := {entry.check | some entry in unchecked}

deny contains d if {
	some check in lib.unproven - excused
	code := lib.excusable[check]
	d := lib.denial(code, null, sprintf("%v is not proven", [check]), "proven", "unproven", null)
}

# ---------- of your own: what you look for, whether or not anybody should refuse it

warn contains w if {
	not input.session.tenant == data.author.tenant
	w := {"code": "OTHER_TENANT", "message": sprintf("a session of the tenant %v", [input.session.tenant])}
}

warn contains w if some w in lib.remarks
