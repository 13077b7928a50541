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

# Nothing emulated, no generation of processors that is known to be broken, no GPU in development mode.
deny contains d if some d in lib.platform_denials

# ---------- what is not proven, and for which the relying party wrote no reason

unchecked contains entry if some entry in lib.excused(lib.checks)

deny contains d if some d in lib.unproven_denials(unchecked, lib.checks)

# ---------- of your own: what you look for, whether or not anybody should refuse it

warn contains w if {
	not input.session.tenant == data.author.tenant
	w := {"code": "OTHER_TENANT", "message": sprintf("a session of the tenant %v", [input.session.tenant])}
}

warn contains w if some w in lib.remarks
