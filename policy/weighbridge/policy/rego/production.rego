# The policy for production, on any genuine platform: everything is proven, or left out by a reason that the relying
# party wrote into reference.unchecked and that stands in every verdict.
#
# Proves, of the window it admits: a genuine TPM, or a confidential machine of a sound generation, whose state the host
# does not hold, quoted it freshly; every GPU is NVIDIA's, with the measurements of its reference; the loaded weights are
# the declared ones and known to the relying party; and of `lib.excusable` all that has no reason.
# Does not prove what a reason leaves out, nor that the GPU stands in the machine whose TPM speaks: read the reasons.
package weighbridge.policy

import data.weighbridge.lib
import data.weighbridge.lib.always
import data.weighbridge.lib.checks
import data.weighbridge.lib.doubts
import data.weighbridge.lib.genuine
import data.weighbridge.lib.platform_denials
import data.weighbridge.lib.remarks
import data.weighbridge.lib.sound
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	sound
	genuine
}

# What every policy demands.
deny contains d if {
	not sound
	some d in always
}

# Nothing emulated, no platform whose host holds the TPM's state, no broken generation, no GPU in development mode.
deny contains d if {
	not genuine
	some d in platform_denials
}

# What is not proven needs a written reason.
unchecked contains entry if some entry in lib.excused(checks)

deny contains d if some d in lib.unproven_denials(unchecked, checks)

warn contains w if some w in remarks

obligations contains o if some o in doubts
