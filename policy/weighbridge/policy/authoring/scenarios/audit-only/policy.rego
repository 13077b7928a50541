# For auditors: says of every window what a strict policy would have against it, and admits none.
#
# Nothing is switched off by it, and nothing can be opened with it: `allow` is never true. Read what it warns of with
# `weighbridge policy replay`, or in the verdicts of a verifier beside the one that decides.
package weighbridge.policy

import data.weighbridge.lib
import rego.v1

# Never anything else: an audit is no admission.
default allow := false

deny contains d if {
	d := lib.denial("AUDIT_ONLY", null, "this policy only observes", null, null, "what it saw is among the warnings")
}

# ---------- what every policy demands, as warnings

warn contains w if {
	some d in lib.always
	w := {"code": d.code, "message": d.message}
}

# ---------- what is not proven, with the relying party's reason where there is one

unchecked contains entry if {
	some check in lib.unproven
	reason := lib.reason(check)
	entry := {"check": check, "reason": reason}
}

excused := {entry.check | some entry in unchecked}

warn contains w if {
	some check in lib.unproven - excused
	code := lib.excusable[check]
	w := {"code": code, "message": sprintf("%v is not proven", [check])}
}

# ---------- of your own: what you look for

warn contains w if {
	not input.session.tenant == data.author.tenant
	w := {"code": "OTHER_TENANT", "message": sprintf("a session of the tenant %v", [input.session.tenant])}
}

warn contains w if some w in lib.remarks
