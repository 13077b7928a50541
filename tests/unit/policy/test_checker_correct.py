"""Ten correct policies, each in a style of its own: nothing is found in them, no warning either, and they decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from support.checked import WHOLE, checked
from weighbridge.policy.engines.regorus import RegorusEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.policy.checker.findings import CheckerFinding
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.policy_set import PolicySet

BEGIN: Final = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

deny contains d if some d in lib.always

"""

CORRECT: Final = {
    "the least": "allow if count(deny) == 0\n",
    "a tenant's model gate": """
allow if count(deny) == 0

deny contains d if {
	tenant := input.session.tenant
	not tenant in {"acme", "tenant"}
	d := lib.denial("NOT_OUR_TENANT", null, "another tenant's session", null, input.session.tenant, null)
}

accepted := {model | some model, _ in data.reference.models}

deny contains d if {
	some model in input.weights.loaded
	manifest := model.manifest
	not manifest in accepted
	d := lib.denial("NOT_ACCEPTED", null, "a model that is not accepted", null, model.name, null)
}
""",
    "positive rules, denied on their not": """
allow if {
	count(deny) == 0
	every_gpu_good
}

every_gpu_good if {
	count(input.gpus) > 0
	every gpu in input.gpus {
		gpu.fwid in {"matches", "missing"}
		not gpu.revocation == "revoked"
	}
}

deny contains d if {
	not quick
	d := lib.denial("SLOW", null, "the windows are too long", 30000000000, input.session.window_period_ns, null)
}

quick if input.session.window_period_ns <= 30 * second

second := 1000000000
""",
    "functions with two clauses and else": """
allow if count(deny) == 0

limit(kind) := 64 if {
	kind == "gpu"
} else := 4 if {
	kind == "switch"
} else := 0

known(gpu) if gpu.kind == "gpu"

known(gpu) if {
	gpu.kind == "switch"
	gpu.signed_locked == true
}

deny contains d if {
	some gpu in input.gpus
	not known(gpu)
	d := lib.denial("UNKNOWN", gpu.identity, "a device of an unknown kind", null, gpu.kind, null)
}

deny contains d if {
	some kind in {"gpu", "switch"}
	found := count([gpu | some gpu in input.gpus; gpu.kind == kind])
	found > limit(kind)
	d := lib.denial("TOO_MANY", null, sprintf("too many devices of kind %v", [kind]), limit(kind), found, null)
}
""",
    "objects and comprehensions": """
allow if {
	count(deny) == 0
	object.keys(by_driver) == {"550"}
}

by_driver[driver] := identities if {
	some driver in {gpu.driver | some gpu in input.gpus}
	identities := [gpu.identity | some gpu in input.gpus; gpu.driver == driver]
}

deny contains d if {
	some driver, identities in by_driver
	count(identities) > 8
	d := lib.denial("TOO_MANY", null, concat(" ", ["more than 8 GPUs with driver", driver]), null, null, null)
}

codes := {finding.code: finding.message | some finding in input.findings}

warn contains w if {
	some code, message in codes
	w := {"code": code, "message": message}
}
""",
    "times and numbers": """
allow if count(deny) == 0

received := to_number(input.received_ns)

deny contains d if {
	some model in input.weights.loaded
	until := data.reference.models[model.manifest].not_after
	until != null
	time.parse_rfc3339_ns(until) < received
	d := lib.denial("EXPIRED", null, "the model's set has expired", until, input.received_at, null)
}

deny contains d if {
	input.gap.held_windows > 3
	d := lib.denial("GAP", null, "too many windows were held back", 3, input.gap.held_windows, null)
}

rate := input.work.tokens_out / input.work.requests if input.work.requests > 0

warn contains w if {
	rate > 100000
	w := {"code": "LONG", "message": sprintf("%v tokens for each request", [rate])}
}
""",
    "what may be null": """
allow if count(deny) == 0

deny contains d if {
	some gpu in input.gpus
	gpu.cc_mode_host_claim != null
	not gpu.cc_mode_host_claim == "on"
	d := lib.denial("CC", gpu.identity, "the host says that it is not on", "on", gpu.cc_mode_host_claim, null)
}

deny contains d if {
	some gpu in input.gpus
	driver := gpu.driver
	not is_null(driver)
	not startswith(driver, "550")
	d := lib.denial("DRIVER", gpu.identity, "another driver", "550", driver, null)
}

deny contains d if {
	is_null(input.platform.firmware)
	input.platform.kind == "tpm-ek-credential"
	d := lib.denial("FIRMWARE", null, "no firmware version is quoted", null, null, null)
}
""",
    "left out with reasons": """
allow if count(deny) == 0

reasons := {
	"attester_code": "nothing here proves it, and the contract says so",
	"telemetry_baseline": "there is no baseline for this model yet",
}

unchecked contains entry if {
	some check in lib.unproven
	reason := reasons[check]
	entry := {"check": check, "reason": reason}
}

deny contains d if {
	some check in lib.unproven - object.keys(reasons)
	code := lib.excusable[check]
	d := lib.denial(code, null, sprintf("%v is not proven", [check]), "proven", "unproven", null)
}
""",
    "the author's own data": """
allow if count(deny) == 0

default most := 8

most := data.author.most_gpus if is_number(data.author.most_gpus)

deny contains d if {
	count(input.gpus) > most
	d := lib.denial("TOO_MANY", null, "more GPUs than were agreed", most, count(input.gpus), null)
}

deny contains d if {
	some site, prefix in data.author.sites
	input.session.audience == site
	ak := input.platform.ak
	not begins(ak, prefix)
	d := lib.denial("OTHER_HOST", null, "not a host of this site", prefix, input.platform.ak, null)
}

begins(text, prefix) if startswith(text, prefix)
""",
    "imports of documents, indices, nested every": """
import data.reference.models
import input.weights as shown

allow if {
	count(deny) == 0
	count(input.gpus) > 0
	every i, gpu in input.gpus {
		i >= 0
		count(gpu.manifests) > 0
		every manifest in gpu.manifests { manifest.revocation == "good" }
	}
}

deny contains d if {
	shown.log_length == 0
	d := lib.denial("NO_LOG", null, "nothing was measured", null, null, null)
}

deny contains d if {
	some i, _ in shown.declared
	manifest := shown.declared[i].manifest
	not models[manifest].name == shown.declared[i].name
	name := shown.declared[i].name
	known := object.get(models, [manifest, "name"], null)
	d := lib.denial("OTHER_NAME", null, "known under another name", known, name, null)
}

warn contains w if {
	[first, second] := [input.work.tokens_in, input.work.tokens_out]
	first + second > 1000000
	w := {"code": "BUSY", "message": "a busy window"}
}
""",
}

ACCEPTED: Final = {
    "bound before not": "x if { g := input.gap.since; not is_null(g) }\n",
    "not of a comparison": "x if not input.window.freshness == `fresh`\n",
    "not of a rule": "r if input.window.seq == 7\n\nx if not r\n",
    "not of a function of a variable": "f(g) if g.fwid == `matches`\n\nx if { some g in input.gpus; not f(g) }\n",
    "not of membership of a variable": "x if { v := 1; w := {2}; not v in w }\n",
    "not of an order of what is always there": "x if not input.window.seq > 3\n",
    "not of an order of a variable": "x if { v := input.window.seq + 1; not v > 3 }\n",
    "not of a count of a variable": "x if { v := [1]; not count(v) + 1 > 3 }\n",
    "not of a function that always gives something": (
        "f(y) := 1 if { y == 7 } else := 2\n\nx if { v := 1; not f(v) == 1 }\n\nz if { v := 1; not f(v) + 1 > 1 }\n"
    ),
    "literal heads": "x contains 1\n\nx contains [2, {`a`: null}] if true\n\ny[`a`] := 1 if true\n",
    "bound heads": "x contains [k, v] if some k, v in {`a`: 1}\n\ny[k] := v if some k, v in {`a`: 1}\n",
    "a bound object in the head": "x contains {`f`: f} if { some g in input.gpus; f := g.fwid }\n",
    "unequal to what is always there": "x if input.window.freshness != `fresh`\n",
    "unequal of an element that is always there": "x if { some g in input.gpus; g.fwid != `matches` }\n",
    "unequal of an argument that is always there": (
        "f(g) if g.fwid != `matches`\n\nx if { some g in input.gpus; f(g) }\n"
    ),
    "unequal variables": "x if { some a in [1]; some b in [2]; a != b }\n",
    "guarded every": "x if { count(input.gpus) > 0; every g in input.gpus { g.fwid == `matches` } }\n",
    "guarded every of another form": "x if { 0 < count(input.gpus); every i, g in input.gpus { g.mismatches == i } }\n",
    "every guarded by some": "x if { some _ in input.gpus; every g in input.gpus { g.kind == `gpu` } }\n",
    "every guarded further out": (
        "x if { count(input.gpus) > 0; y := [1 | every g in input.gpus { g.kind == `gpu` }]; y == [1] }\n"
    ),
    "every of a literal": "x if every y in [1, 2] { y > 0 }\n",
    "reference values": "x if data.reference.models[`a`].name == `b`\n",
    "a circle that is none": "x if y\n\ny if z\n\nz if w\n\nx if w\n\nw := 1\n",
    "comprehensions": "x := {g.identity: g.fwid | some g in input.gpus}\n\ny := [i | some i, _ in input.gpus]\n",
    "else": "f(x) := 1 if { x == 1 } else := 2 if { x == 2 } else := 3\n",
    "names inside names": "a.b.c := 1\n\nx if a.b.c == 1\n",
    "a default for a function": "default f(_) := 1\n\nf(x) := 2 if x == 1\n",
    "arithmetic": "x := -(1 + 2) * 3 if { input.work.requests - 1 > 0 }\n",
    "sets": "x := {1} | {2}\n\ny := x & {1}\n",
    "a name beyond ascii in a comment": "# é😀\nx := [`é😀` | some name in [1]; name == 1]\n",
    "a name bound twice": "x if { y := [z | some z in input.gpus]; w := [z | some z in [1]]; y != w }\n",
    "a pattern": "x if { [a, b] := [1, 2]; a < b }\n",
    "a member with a default that exists": "x if object.get(input, [`gpus`, 0, `fwid`], ``) == `matches`\n",
    "a wildcard": "x if input.gpus[_].fwid == `matches`\n",
    "an index": "x if { some i, _ in input.gpus; input.gpus[i].fwid == `matches` }\n",
    # -- what is near to a finding, and is none
    "a literal that one clause of two is called with": (
        "f(kind) := 1 if kind == `gpu`\n\nf(kind) := 2 if kind == `switch`\n\nx if f(`gpu`) == 1\n"
    ),
    "two words of two elements": "x if { input.gpus[_].kind == `gpu`; input.gpus[_].kind == `switch` }\n",
    "a word and another that it is not": "x if { some g in input.gpus; g.kind == `gpu`; g.kind != `switch` }\n",
    "a word in two sets": "x if { s := input.session.state; s in {`a`, `b`}; s in {`b`, `c`} }\n",
    "bounds that leave room": "x if { input.window.seq >= 5; input.window.seq <= 5; input.window.seq == 5 }\n",
    "bounds of two expressions": "x if { input.window.seq > 5; input.gap.held_windows < 5 }\n",
    "null of what may be null": "x if { some g in input.gpus; g.cc_mode_host_claim in {`on`, null} }\n",
    "count of what there must be": "x if { count(input.gpus) >= 1; count(input.findings) == 0 }\n",
    "no finding of a kind": "x if count([f | some f in input.findings; f.code == `A`]) == 0\n",
    "no difference": "x if [d | some d in input.weights.differences; d.kind == `a`] == []\n",
    "none bad, and there are some": (
        "x if { count(input.weights.loaded) > 0; bad := {m | some m in input.weights.loaded; m.protection == `none`}; "
        "count(bad) == 0 }\n"
    ),
    "not of what is collected": "x if not count([g | some g in input.gpus; g.kind == `gpu`]) == 1\n",
    "not of a rule that always is": "kinds := {g.kind | some g in input.gpus}\n\nx if not count(kinds) == 1\n",
    "a pattern of arguments": "f([a, b]) := a + b\n\nx := f([1, 2])\n",
    "a function with two clauses around object.get": (
        "f(o, n) := object.get(o, n, 1) if is_object(o)\n\nf(o, n) := n if is_null(o)\n\n"
        "x if { some g in input.gpus; f(g, `other`) == 1 }\n"
    ),
    "a table asked with a default": "t := {`a`: 1}\n\nx if object.get(t, `b`, 2) == 2\n",
    "key and value": "x if `a`, 1 in {`a`: 1}\n",
    "a value of a table": "x if 1 in {`a`: 1}\n",
    "a lookup by a computed name": "t := {`a`: 1, `b`: 2}\n\nx if { some k in [`a`, `b`]; t[k] == 1 }\n",
    "a function of two shapes": (
        "named(m) if is_string(m.name)\n\nx if { some m in input.weights.declared; named(m) }\n\n"
        "y if { some m in input.weights.loaded; named(m) }\n"
    ),
    "an argument that is a name by intent": "f(_unused, b) := b\n\nx := f(1, 2)\n",
    "a set where a set is": "x if { kinds := {g.kind | some g in input.gpus}; kinds == {`gpu`} }\n",
    "numbers out of texts": "x if to_number(input.received_ns) > 5\n",
    "times out of texts": (
        "x if { some g in input.gpus; some m in g.manifests; time.parse_rfc3339_ns(m.issued) < time.now_ns() }\n"
    ),
    "a semantic version that is the author's": "x if semver.compare(data.author.version, `1.2.3`) >= 0\n",
    "an order of texts that are no versions": "x if { some name in data.author.names; name < `m` }\n",
    "a denial that is written out": (
        "deny contains d if { input.window.seq == 0; d := {`code`: `NO_WINDOW`, `window`: null, `device`: null, "
        "`expected`: null, `got`: null, `hint`: null} }\n"
    ),
    "a denial with a code that is computed": (
        "deny contains d if { input.window.seq == 0; d := {`code`: upper(`no_window`)} }\n"
    ),
    "a denial with a member of a computed name": (
        "deny contains d if { input.window.seq == 0; name := lower(`CODE`); d := {name: `NO_WINDOW`} }\n"
    ),
    "texts in another set than deny": "x contains `small` if input.window.seq == 0\n",
    "a word of two fields": "x if { some g in input.gpus; g.reference == input.platform.boot_reference }\n",
}
QUIET: Final = frozenset({"deny-without-library", "unused-rule", "after-false"})
"""Of the shortened policies: they are made of one rule that nothing asks for."""


@pytest.fixture(scope="module")
def findings() -> dict[str, tuple[CheckerFinding, ...]]:
    """What is found, by name."""
    return checked(
        {**{name: whole(name) for name in CORRECT}, **{name: WHOLE + text for name, text in ACCEPTED.items()}}
    )


def whole(name: str) -> str:
    text = CORRECT[name]
    imports = [line for line in text.splitlines() if line.startswith("import ")]
    rest = "\n".join(line for line in text.splitlines() if not line.startswith("import "))
    return BEGIN.replace("import rego.v1\n", "\n".join([*imports, "import rego.v1"]) + "\n") + rest + "\n"


@pytest.mark.parametrize("name", CORRECT)
def test_nothing_is_found_in_a_correct_policy(findings: dict[str, tuple[CheckerFinding, ...]], name: str) -> None:
    assert findings[name] == ()


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_policy_decides(policy_of: Callable[[str], PolicySet], good: PolicyInput, name: str) -> None:
    with RegorusEngine().load(policy_of(whole(name))) as prepared:
        decision = prepared.decide(good)
    assert decision.outcome in ("allow", "deny"), decision.detail


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_written_well_is_accepted(findings: dict[str, tuple[CheckerFinding, ...]], name: str) -> None:
    assert [finding for finding in findings[name] if finding.check not in QUIET] == []
