"""The static checker names what engines read otherwise than authors mean: one dangerous policy for each way.

Numbers such as §2.3-1 are those of the measured differences between engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from support.checked import NAME, PACKAGE, WHOLE, checked, importing, of_check
from weighbridge.policy.checker.findings import CHECKS

if TYPE_CHECKING:
    from weighbridge.policy.checker.findings import CheckerFinding

REFUSED: Final = {
    "another package": (
        "package",
        "package other\n\ndefault allow := false\n",
        "the package other is not the author's to write",
    ),
    "the library's package": (
        "package",
        "package weighbridge.lib\n\nx := 1\n",
        "the package weighbridge.lib is not the author's to write",
    ),
    "a package inside the reference values": (
        "package",
        "package reference\n\nmodels := {}\n",
        "the package reference is not the author's to write",
    ),
    "a package inside the author's": (
        "package",
        "package weighbridge.policy.sub\n\nx := 1\n",
        "the package weighbridge.policy.sub is not the author's to write",
    ),
    "the author's own package": (
        "whole-package",
        importing("import data.weighbridge.policy") + "x contains 1 if count(policy.deny) > 0\n",
        "policy is all that is in data.weighbridge.policy",
    ),
    "what the author's package is in": (
        "whole-package",
        importing("import data.weighbridge") + "x contains 1 if count(weighbridge.lib.always) > 0\n",
        "weighbridge is all that is in data.weighbridge",
    ),
    "all of data": ("whole-package", WHOLE + "x := count(data)\n", "data is everything there is"),
    "all of data, by a name": (
        "whole-package",
        WHOLE + 'x contains 1 if {\n\tsome n in ["weighbridge"]\n\tcount(data[n]) > 0\n}\n',
        "data is everything there is",
    ),
    "no default (A63)": (
        "default-missing",
        PACKAGE + "allow if true\ndeny contains 1 if false\n",
        "allow has no default",
    ),
    "default true": (
        "default-missing",
        PACKAGE + "default allow := true\ndeny contains 1 if false\n",
        "the default of allow is not false",
    ),
    "default null": (
        "default-missing",
        PACKAGE + "default allow := null\ndeny contains 1 if false\n",
        "the default of allow is not false",
    ),
    "default zero": (
        "default-missing",
        PACKAGE + "default allow := 0\ndeny contains 1 if false\n",
        "the default of allow is not false",
    ),
    "two defaults (§2.2)": ("default-twice", WHOLE + "default allow := true\n", "default allow stands twice"),
    "two defaults of another rule": (
        "default-twice",
        WHOLE + "default x := 1\ndefault x := 2\n",
        "default x stands twice",
    ),
    "a default for deny": ("entry-rule", WHOLE + "default deny := {1}\n", "deny has a default"),
    "no deny": ("entry-rule", PACKAGE + "default allow := false\n", "there is no set deny"),
    "deny is a list": ("entry-rule", PACKAGE + "default allow := false\ndeny := []\n", "there is no set deny"),
    "deny is an object": ("entry-rule", PACKAGE + 'default allow := false\ndeny["x"] := 1\n', "there is no set deny"),
    "deny is a function": ("entry-rule", PACKAGE + "default allow := false\ndeny(x) := x\n", "there is no set deny"),
    "unchecked is a list": ("entry-rule", WHOLE + "unchecked := []\n", "unchecked is not a set"),
    "allow is a set": ("entry-rule", WHOLE + "allow contains 1\n", "allow is not a rule of one value"),
    "allow is a function": ("entry-rule", WHOLE + "allow(x) if x\n", "allow is not a rule of one value"),
    "allow is text": ("entry-rule", WHOLE + 'allow := "yes"\n', "allow has another value than true"),
    "allow is computed": ("entry-rule", WHOLE + "allow := input.gap.since\n", "allow has another value than true"),
    "allow else text": ("entry-rule", WHOLE + 'allow if false else := "yes"\n', "allow has another value than true"),
    "unknown function (§2.2)": ("function-unknown", WHOLE + "allow if check(1)\n", "check is not a function"),
    "unknown function in a rule that is not reached": (
        "function-unknown",
        WHOLE + "x if check(1)\n",
        "check is not a function",
    ),
    "a rule is no function": ("function-unknown", WHOLE + "x := 1\ny := x(1)\n", "x is a rule and not a function"),
    "builtin with too few arguments (§2.2)": (
        "arity",
        WHOLE + "x := startswith(`a`)\n",
        "startswith takes 2 arguments, not 1",
    ),
    "function with too many arguments": ("arity", WHOLE + "f(a) := a\n\nx := f(1, 2)\n", "f takes 1 argument, not 2"),
    "the network": (
        "function-forbidden",
        WHOLE + "x := http.send({})\n",
        "http.send may not be called: it reaches outside, and a verdict would hang on who answers",
    ),
    "names on the network": (
        "function-forbidden",
        WHOLE + "x := net.lookup_ip_addr(`a`)\n",
        "net.lookup_ip_addr may not be called: it reaches outside, or is missing in the engine",
    ),
    "the process": (
        "function-forbidden",
        WHOLE + "x := opa.runtime()\n",
        "opa.runtime may not be called: it depends on the machine",
    ),
    "chance": (
        "function-forbidden",
        WHOLE + "x := rand.intn(`a`, 2)\n",
        "rand.intn may not be called: it is not repeatable",
    ),
    "unique identifiers": (
        "function-forbidden",
        WHOLE + "x := uuid.rfc4122(`a`)\n",
        "uuid.rfc4122 may not be called: it is not repeatable",
    ),
    "unimplemented builtin (§2.3-3)": (
        "function-forbidden",
        WHOLE + "x if not net.cidr_contains(`a`, `b`)\n",
        "net.cidr_contains may not be called: it reaches outside, or is missing in the engine",
    ),
    "much out of little": (
        "function-forbidden",
        WHOLE + "x := numbers.range(1, 1000000000)\n",
        "numbers.range may not be called: it makes much out of little",
    ),
    "print": ("print-in-policy", WHOLE + "x if print(1)\n", "print stands in a policy"),
    "a panic of the engine": (
        "function-forbidden",
        WHOLE + "x := strings.count(``, ``)\n",
        "strings.count may not be called: it ends the engine for an empty text",
    ),
    "not with a call of a reference (§2.3-1)": (
        "not-maybe-undefined",
        WHOLE + "x if not startswith(input.gap.since, `a`)\n",
        "the call of startswith under not takes input.gap.since, which may be undefined",
    ),
    "not with a comparison of a call": (
        "not-maybe-undefined",
        WHOLE + "x if not count(input.gpus) > 0\n",
        "the call of count under not takes input.gpus, which may be undefined",
    ),
    "not with membership of a reference": (
        "not-maybe-undefined",
        WHOLE + "x if not input.gap.since in {`a`}\n",
        "the membership under not takes input.gap.since, which may be undefined",
    ),
    "not with membership in a reference": (
        "not-maybe-undefined",
        WHOLE + "x if not `a` in data.reference.models\n",
        "the membership under not takes data.reference.models, which may be undefined",
    ),
    "not with keyed membership": (
        "not-maybe-undefined",
        WHOLE + "x if not input.gap.since, 1 in {`a`}\n",
        "the membership under not takes input.gap.since, which may be undefined",
    ),
    "not with a call in a call": (
        "not-maybe-undefined",
        WHOLE + "x if { y := `a`; not count(split(y, `,`)) > 0 }\n",
        "the call of count under not takes split(y, `,`), which may be undefined",
    ),
    "not with a call of a rule": (
        "not-maybe-undefined",
        WHOLE + "r if false\n\nx if not is_boolean(r)\n",
        "the call of is_boolean under not takes r, which may be undefined",
    ),
    "not in a comprehension": (
        "not-maybe-undefined",
        WHOLE + "x := [1 | not is_null(input.gap.since)]\n",
        "the call of is_null under not takes input.gap.since, which may be undefined",
    ),
    "not with an order of references": (
        "not-maybe-undefined",
        WHOLE + "x if { some pcr in input.platform.boot_pcrs; not input.platform.boot_pcrs[7].index > pcr.index }\n",
        "the expression under not takes input.platform.boot_pcrs[7].index, which may be undefined",
    ),
    "not with arithmetic": (
        "not-maybe-undefined",
        WHOLE + "x if not data.author.n + 1 == 8\n",
        "the expression under not takes data.author.n, which may be undefined",
    ),
    "not with a computed index": (
        "not-maybe-undefined",
        WHOLE + "x if not data.author.names[data.author.n]\n",
        "the expression under not takes data.author.n, which may be undefined",
    ),
    "not with a call that is not the whole line": (
        "not-maybe-undefined",
        WHOLE + "f(y) := 1 if y == 7\n\nx if not f(8) == 1\n",
        "the expression under not takes f(8), which may be undefined",
    ),
    "a denial that says what may be missing": (
        "denial-maybe-undefined",
        importing("import data.weighbridge.lib") + "x := lib.denial(`A`, null, `a`, data.author.tenants, null, null)\n",
        "the denial takes data.author.tenants, which may be undefined",
    ),
    "a denial whose words say what may be missing": (
        "denial-maybe-undefined",
        importing("import data.weighbridge.lib")
        + "x := d if { m := sprintf(`%v`, [data.author.n]); d := lib.denial(`A`, null, m, null, null, null) }\n",
        "the denial takes data.author.n, which may be undefined",
    ),
    "not with a wildcard": (
        "not-wildcard",
        WHOLE + "x if not input.gpus[_].reported_in_window\n",
        "an index without a name stands under not",
    ),
    "reference in the head of a set (§2.3-2)": (
        "head-unbound",
        WHOLE + "x contains g.fwid if some g in input.gpus\n",
        "the head of x takes g.fwid, which the body does not bind",
    ),
    "call in the head of a set": (
        "head-unbound",
        WHOLE + "x contains upper(g) if { some g in [`a`] }\n",
        "the head of x takes upper(g), which the body does not bind",
    ),
    "rule in the head of a set": (
        "head-unbound",
        WHOLE + "r := 1 if false\n\nx contains r if true\n",
        "the head of x takes r, which the body does not bind",
    ),
    "reference inside an object in the head": (
        "head-unbound",
        WHOLE + "x contains {`a`: g.fwid} if some g in input.gpus\n",
        "the head of x takes g.fwid, which the body does not bind",
    ),
    "reference as a key of an object rule": (
        "head-unbound",
        WHOLE + "x[g.fwid] := 1 if some g in input.gpus\n",
        "the head of x takes g.fwid, which the body does not bind",
    ),
    "reference as a value of an object rule": (
        "head-unbound",
        WHOLE + "x[`a`] := g.fwid if some g in input.gpus\n",
        "the head of x takes g.fwid, which the body does not bind",
    ),
    "name bound only inside a comprehension": (
        "unbound",
        WHOLE + "x contains g if { y := [g | some g in [1]]; y == y }\n",
        "g is not bound here, only inside another expression",
    ),
    "name bound by search": (
        "some-unbound",
        WHOLE + "x contains i if { some i; input.gpus[i].fwid == `matches` }\n",
        "some i binds nothing",
    ),
    "deny itself": (
        "head-unbound",
        WHOLE + "deny contains {`code`: g.fwid} if some g in input.gpus\n",
        "the head of deny takes g.fwid, which the body does not bind",
    ),
    "one body of two": (
        "unbound",
        WHOLE + "x contains y if { y := 1 }\n\nx contains y if { some z in [1]; z == z }\n",
        "y is not bound anywhere",
    ),
    "unequal reference (§2.3-8)": (
        "unequal-maybe-undefined",
        WHOLE + "x if data.reference.models.a.name != `b`\n",
        "data.reference.models.a.name may be undefined, and != is then not true",
    ),
    "unequal member of an argument": (
        "unequal-maybe-undefined",
        WHOLE + "f(g) if g.fwid != `matches`\n",
        "g.fwid may be undefined, and != is then not true",
    ),
    "unequal call": (
        "unequal-maybe-undefined",
        WHOLE + "x if to_number(`a`) != 1\n",
        "to_number(`a`) may be undefined, and != is then not true",
    ),
    "unequal rule": (
        "unequal-maybe-undefined",
        WHOLE + "r := 1 if false\n\nx if r != 2\n",
        "r may be undefined, and != is then not true",
    ),
    "every over a reference (§2.3-7, A10)": (
        "every-maybe-empty",
        WHOLE + "x if every g in input.gpus { g.fwid == `matches` }\n",
        "every holds where input.gpus is empty",
    ),
    "every with the count of something else": (
        "every-maybe-empty",
        WHOLE + "x if { count(input.findings) > 0; every g in input.gpus { g.fwid == `matches` } }\n",
        "every holds where input.gpus is empty",
    ),
    "every with a count that says nothing": (
        "every-maybe-empty",
        WHOLE + "x if { count(input.gpus) >= 0; every g in input.gpus { g.fwid == `matches` } }\n",
        "every holds where input.gpus is empty",
    ),
    "every over an empty literal": (
        "every-maybe-empty",
        WHOLE + "x if every y in [] { y }\n",
        "every holds where [] is empty",
    ),
    "an input that does not exist": ("path-unknown", WHOLE + "x if input.gpu\n", "input has no gpu"),
    "under not": ("path-unknown", WHOLE + "x if not input.window.hold\n", "input.window has no hold"),
    "with another spelling (trustee#1323)": (
        "path-unknown",
        WHOLE + "x if input[`attester-code`]\n",
        "input has no attester-code",
    ),
    "of an element": (
        "path-unknown",
        WHOLE + "x if { some g in input.gpus; g.revokation == `good` }\n",
        "input.gpus[] has no revokation",
    ),
    "of an element by index": (
        "path-unknown",
        WHOLE + "x if input.gpus[0].revokation == `good`\n",
        "input.gpus[] has no revokation",
    ),
    "of an element of every": (
        "path-unknown",
        WHOLE + "x if { count(input.gpus) > 0; every g in input.gpus { g.revokation == `good` } }\n",
        "input.gpus[] has no revokation",
    ),
    "through a variable": ("path-unknown", WHOLE + "x if { w := input.window; w.late }\n", "input.window has no late"),
    "through an import": (
        "path-unknown",
        importing("import input.window as w") + "x if w.late\n",
        "input.window has no late",
    ),
    "inside a scalar": (
        "path-unknown",
        WHOLE + "x if input.schema.version\n",
        "input.schema is text: there is nothing inside",
    ),
    "an element of a scalar": (
        "path-unknown",
        WHOLE + "x if input.schema[0]\n",
        "input.schema is text: there is nothing inside",
    ),
    "a member of a list": (
        "path-unknown",
        WHOLE + "x if input.gpus.fwid\n",
        "input.gpus is a list: it has elements, and no fwid",
    ),
    "a computed member": (
        "path-unknown",
        WHOLE + "x if { some n in [`a`]; input[n] }\n",
        "the members of input have fixed names",
    ),
    "an import that does not exist": ("path-unknown", importing("import input.gpu"), "input has no gpu"),
    "an import of data that does not exist": (
        "path-unknown",
        importing("import data.other"),
        "data.other does not exist",
    ),
    "an import of another language": (
        "path-unknown",
        importing("import future.keywords.in"),
        "future.keywords.in cannot be imported",
    ),
    "data that does not exist": ("path-unknown", WHOLE + "x if data.other.x\n", "data.other.x does not exist"),
    "reference values that do not exist": (
        "path-unknown",
        WHOLE + "x if not data.reference.model\n",
        "data.reference has no model",
    ),
    "reference values through an import": (
        "path-unknown",
        importing("import data.reference") + "x if reference.model\n",
        "data.reference has no model",
    ),
    "a part of a name that does not exist": (
        "path-unknown",
        WHOLE + "a.b := 1\n\nx if not a.c\n",
        "a.c does not exist",
    ),
    "a rule of the library that does not exist": (
        "path-unknown",
        importing("import data.weighbridge.lib") + "x if not lib.frehs\n",
        "data.weighbridge.lib.frehs does not exist",
    ),
    "a member with a default": (
        "path-unknown",
        WHOLE + "x if object.get(input.window, `hold`, false) == false\n",
        "input.window has no hold",
    ),
    "a path with a default": (
        "path-unknown",
        WHOLE + "x if object.get(input, [`window`, `hold`], false) == false\n",
        "input.window has no hold",
    ),
    "a variable that nothing binds under not": (
        "unbound",
        WHOLE + "x if not input.gpus[i].reported_in_window\n",
        "i is not bound anywhere",
    ),
    "a variable that nothing binds (§2.2)": ("unbound", WHOLE + "x if nothing == 1\n", "nothing is not bound anywhere"),
    "a variable named as a rule": (
        "name-taken",
        WHOLE + "y := 1\n\nx if { y := 2; y == 2 }\n",
        "y is a variable here, and a rule as well",
    ),
    "a variable named as an import": (
        "name-taken",
        importing("import input.gpus") + "x := [1 | some gpus in [1]]\n",
        "gpus is a variable here, and an import as well",
    ),
    "an argument named input (§2.2)": (
        "name-taken",
        WHOLE + "f(input) := input\n",
        "input is a variable here, and a document as well",
    ),
    "a variable that is only named": (
        "some-unbound",
        WHOLE + "x if { some i; not input.gpus[i].reported_in_window }\n",
        "some i binds nothing",
    ),
    "a function named as a builtin": (
        "name-taken",
        WHOLE + "startswith(a, b) := a == b\n",
        "the rule startswith has the name of a builtin",
    ),
    "a rule named as a namespace": (
        "name-taken",
        WHOLE + "object.get(a) := a\n",
        "the rule object.get has the name of a builtin",
    ),
    "a rule named as an import": (
        "name-taken",
        importing("import input.window") + "window := 1\n",
        "the rule window has the name of an import",
    ),
    "an import named input": (
        "name-taken",
        importing("import data.reference as input"),
        "input has another meaning already",
    ),
    "an import named as a builtin": (
        "name-taken",
        importing("import data.reference as count"),
        "count has another meaning already",
    ),
    "binding by =": ("unify", WHOLE + "x if { y = 1; y == 1 }\n", "= both compares and binds"),
    "with": ("with", WHOLE + "x if allow with input as {}\n", "with replaces what a policy judges by"),
    "a rule that depends on itself": (
        "recursion",
        WHOLE + "x if y\n\ny if x\n",
        "the rule depends on itself: weighbridge.policy.x → weighbridge.policy.y → weighbridge.policy.x",
    ),
    "a function that calls itself": (
        "recursion",
        WHOLE + "f(n) := f(n)\n",
        "the rule depends on itself: weighbridge.policy.f → weighbridge.policy.f",
    ),
    "a circle through the package": (
        "recursion",
        WHOLE + "x if data.weighbridge.policy.x\n",
        "the rule depends on itself: weighbridge.policy.x → weighbridge.policy.x",
    ),
    "a circle through the whole package": (
        "recursion",
        WHOLE + "x := count(data.weighbridge.policy)\n",
        "the rule depends on itself: weighbridge.policy.x → weighbridge.policy.x",
    ),
}

LIB: Final = importing("import data.weighbridge.lib")
GPU: Final = "x if { some g in input.gpus; "

MEANT: Final = {
    # -- functions
    "starts_with": ("function-unknown", WHOLE + "x if starts_with(`a`, `b`)\n", "did you mean startswith?"),
    "len": ("function-unknown", WHOLE + "x if len(input.gpus) == 2\n", "did you mean count?"),
    "all": ("function-unknown", WHOLE + "x if all([true])\n", "did you mean every x in xs { … }?"),
    "a function of one's own": ("function-unknown", WHOLE + "good(g) if g == 1\n\nx if god(1)\n", "mean good?"),
    "a function of the library's": (
        "function-unknown",
        LIB + "x if { some g in input.gpus; lib.genuine_gpus(g) }\n",
        "did you mean lib.genuine_gpu?",
    ),
    # -- paths
    "under the reference values": ("path-unknown", WHOLE + "x if data.reference.model\n", "did you mean models?"),
    "of a model": (
        "path-unknown",
        WHOLE + "x if { some m in data.reference.models; m.ownr == `a` }\n",
        "did you mean owner?",
    ),
    "of a looked-up model": (
        "path-unknown",
        WHOLE + "x if data.reference.models[`a`].ownr == `a`\n",
        "did you mean owner?",
    ),
    "of a statement": (
        "path-unknown",
        WHOLE + "x if { some s in data.reference.models[`a`].statements; s.isuer == `a` }\n",
        "did you mean issuer?",
    ),
    "of a host set": ("path-unknown", WHOLE + "x if data.reference.hosts[0].nme\n", "did you mean name?"),
    "of a check that may be left out": (
        "path-unknown",
        WHOLE + "x if data.reference.unchecked.secure_bot\n",
        "did you mean secure_boot?",
    ),
    "of the library's list": (
        "path-unknown",
        LIB + "x if { some g in lib.gpus; g.revokation == `good` }\n",
        "did you mean revocation?",
    ),
    "through two variables": (
        "path-unknown",
        WHOLE + "x if { p := input.platform; t := p.tee; t.kinde == `tdx` }\n",
        "did you mean kind?",
    ),
    "of a function's argument, where all calls agree": (
        "path-unknown",
        WHOLE + "f(g) if g.revokation == `good`\n\nx if { some g in input.gpus; f(g) }\n",
        "did you mean revocation?",
    ),
    "of an argument through two functions": (
        "path-unknown",
        WHOLE + "e(g) if g.fwidd == `matches`\n\nf(g) if e(g)\n\nx if { some g in input.gpus; f(g) }\n",
        "did you mean fwid?",
    ),
    "by the library's field": (
        "path-unknown",
        LIB + "x if { some g in lib.gpus; lib.field(g, `revokation`) == 1 }\n",
        "did you mean revocation?",
    ),
    "of a denial": (
        "path-unknown",
        LIB + "x if { some d in lib.always; d.cod == `A` }\n",
        "did you mean code?",
    ),
    "of a table that is written out": (
        "path-unknown",
        WHOLE + "t := {`good`: 1, `bad`: 2}\n\nx if t.god == 1\n",
        "did you mean good?",
    ),
    "of a comprehension": (
        "path-unknown",
        WHOLE + "x if { gs := [g | some g in input.gpus]; some h in gs; h.fwidd == `a` }\n",
        "did you mean fwid?",
    ),
    # -- names
    "a variable": ("unbound", WHOLE + "x if { some gpu in input.gpus; gpo.fwid == `matches` }\n", "did you mean gpu?"),
    "a rule": ("unused-rule", WHOLE + "warnings contains w if { w := 1 }\n", "did you mean warn?"),
    # -- words
    "a word": ("word-unknown", WHOLE + GPU + "g.revocation == `goood` }\n", 'did you mean "good"?'),
    "a word in a set": ("word-unknown", WHOLE + GPU + "g.revocation in {`good`, `abesnt`} }\n", 'mean "absent"?'),
    "a word in a named set": (
        "word-unknown",
        WHOLE + "ok := {`good`, `abesnt`}\n\n" + GPU + "g.revocation in ok }\n",
        'mean "absent"?',
    ),
    "another spelling": ("word-unknown", WHOLE + "x if input.attester_code.status == `Proven`\n", 'mean "proven"?'),
}

FOUND: Final = {
    # -- what never holds
    "!= of a word that is none": ("word-unknown", WHOLE + GPU + "g.revocation != `goood` }\n", "always other than"),
    "under not": ("word-unknown", WHOLE + GPU + "not g.revocation == `goood` }\n", "is never"),
    "the literal first": ("word-unknown", WHOLE + "x if `Fresh` == input.window.freshness\n", "is never"),
    "two fields": ("word-unknown", WHOLE + GPU + "g.fwid == g.reference_by }\n", "no word in common"),
    "a word of what is collected": (
        "word-unknown",
        WHOLE + "x if `gold` in {g.revocation | some g in input.gpus}\n",
        "never holds",
    ),
    "a word through a function": (
        "word-unknown",
        WHOLE + "ok(g) if g.revocation == `goood`\n\nx if { some g in input.gpus; ok(g) }\n",
        "is never",
    ),
    "a word that a rule never gives": (
        "word-unknown",
        WHOLE + "mode := `a` if input.window.seq == 1\n\nmode := `b` if input.window.seq == 2\n\nx if mode == `c`\n",
        "is never",
    ),
    "text with a number": ("type-mismatch", WHOLE + "x if input.received_ns > 5\n", "only types compare"),
    "a number with text": ("type-mismatch", WHOLE + "x if input.window.seq == `5`\n", "never equal"),
    "unequal types": ("type-mismatch", WHOLE + "x if input.window.seq != `5`\n", "always unequal"),
    "true with text": ("type-mismatch", WHOLE + GPU + "g.reported_in_window == `true` }\n", "never equal"),
    "a list with a set": ("type-mismatch", WHOLE + "x if input.weights.differences == {1}\n", "never equal"),
    "a number in a set of text": ("type-mismatch", WHOLE + "x if input.window.seq in {`1`, `2`}\n", "never equal"),
    "in text": ("type-mismatch", WHOLE + "x if `a` in input.session.tenant\n", "nothing is in it"),
    "a key by in": (
        "type-mismatch",
        WHOLE + "x if { m := input.weights.loaded[0].manifest; m in data.reference.models }\n",
        "holds objects",
    ),
    "two words": ("contradiction", WHOLE + GPU + "g.kind == `gpu`; g.kind == `switch` }\n", "excludes"),
    "a word and not the same": ("contradiction", WHOLE + GPU + "g.kind == `gpu`; not g.kind == `gpu` }\n", "excludes"),
    "a word and a set without it": (
        "contradiction",
        WHOLE + "x if { input.session.state == `a`; input.session.state in {`b`} }\n",
        "excludes",
    ),
    "a set without all its words": (
        "contradiction",
        WHOLE + "x if { input.session.state in {`a`}; input.session.state != `a` }\n",
        "excludes",
    ),
    "two bounds": ("contradiction", WHOLE + "x if { input.window.seq > 5; 5 >= input.window.seq }\n", "excludes"),
    "a number beyond a bound": (
        "contradiction",
        WHOLE + "x if { input.window.seq == 5; input.window.seq < 5 }\n",
        "excludes",
    ),
    "count below nothing": ("count-bound", WHOLE + "x if count(input.gpus) < 0\n", "never holds"),
    "count at most less than nothing": ("count-bound", WHOLE + "x if count(input.gpus) <= -1\n", "never holds"),
    "count of a full deny": ("count-bound", WHOLE + "allow if count(deny) >= 0\n", "always holds"),
    "nothing before count": ("count-bound", WHOLE + "allow if 0 <= count(deny)\n", "always holds"),
    "null of what is never null": ("null-never", WHOLE + GPU + "g.revocation == null }\n", "never null"),
    "null of a number": ("null-never", WHOLE + "x if input.window.seq == null\n", "never null"),
    "null of text": ("null-never", WHOLE + "x if null != input.session.tenant\n", "never null"),
    "is_null of what is never null": ("null-never", WHOLE + "x if is_null(input.gpus)\n", "never null"),
    "null in a set": ("null-never", WHOLE + GPU + "g.fwid in {`matches`, null} }\n", "never null"),
    "lines beside false": ("after-false", WHOLE + "x if { false; input.window.seq == 1 }\n", "false stands"),
    # -- lists that may be empty
    "no bad one of none": (
        "all-maybe-empty",
        LIB + "x if count([s | some s in lib.sources; s.platform == `insecure-emulated`]) == 0\n",
        "is empty",
    ),
    "no bad record of none": (
        "all-maybe-empty",
        WHOLE + "x if count([d | some d in input.telemetry.devices; d.verdict == `unusable`]) == 0\n",
        "is empty",
    ),
    "an empty list of bad ones": (
        "all-maybe-empty",
        WHOLE + "x if { bad := [g | some g in input.gpus; g.revocation == `revoked`]; bad == [] }\n",
        "is empty",
    ),
    "by a rule": (
        "all-maybe-empty",
        WHOLE + "bad := {g.identity | some g in input.gpus; g.revocation == `hold`}\n\nx if count(bad) == 0\n",
        "is empty",
    ),
    "guarded further out by another list": (
        "every-maybe-empty",
        WHOLE + "x if { count(input.gpus) > 0; every g in input.gpus { every m in g.manifests { m.id == `a` } } }\n",
        "g.manifests is empty",
    ),
    # -- what a policy must have
    "no library": ("deny-without-library", WHOLE, "lib.always"),
    "an allow of its own": (
        "allow-ignores-deny",
        WHOLE + "allow if input.window.freshness == `fresh`\n",
        "look at deny",
    ),
    "trust_claims without a default": ("default-missing", WHOLE + "trust_claims := {} if true\n", "no answer"),
    # -- what nothing uses
    "a rule": ("unused-rule", WHOLE + "helper := 1\n", "looks at the rule helper"),
    "a function": ("unused-rule", WHOLE + "helper(a) := a\n", "the function helper"),
    "a rule that only an unused one looks at": ("unused-rule", WHOLE + "a := 1\n\nb := a\n", "the rule a"),
    "an import": ("unused-import", LIB, "nothing looks at lib"),
    "a variable": ("unused-variable", WHOLE + "x if { y := input.window.seq; input.window.seq == 1 }\n", "variable y"),
    "an element": ("unused-variable", WHOLE + "x if { some g in input.gpus; input.window.seq == 1 }\n", "write _"),
    "a key": ("unused-variable", WHOLE + "x if { some i, g in input.gpus; g.kind == `gpu` }\n", "variable i"),
    "an argument": ("unused-variable", WHOLE + "f(a, b) := a\n\nx := f(1, 2)\n", "argument b"),
    # -- names
    "not with a call without arguments": (
        "not-maybe-undefined",
        WHOLE + "x if not abs(time.now_ns()) == 1\n",
        "time.now_ns()",
    ),
    "a name bound inside only": (
        "unbound",
        WHOLE + "x if { y := [g | some g in input.gpus]; count(y) == 2; g.kind == `gpu` }\n",
        "not bound here",
    ),
    "a variable called": ("name-taken", WHOLE + "x if { f := 1; f(1) == 2 }\n", "no function"),
    "a function given something else": (
        "path-unknown",
        LIB + "x if { some s in lib.sources; lib.not_revoked(s) }\n",
        "looks at revocation",
    ),
    "what it is not made for": (
        "path-unknown",
        WHOLE + "f(v) if v.kind == `gpu`\n\nx if { some g in input.gpus; f(g) }\n\ny if f(input.window)\n",
        "looks at kind, which input.window has not",
    ),
    "a path into nothing": ("path-unknown", WHOLE + "x if input.window.seq.value == 1\n", "nothing inside"),
    "elements of text": ("path-unknown", WHOLE + "x if { some c in input.session.tenant; c == `a` }\n", "no elements"),
    "an index of a list under !=": ("unequal-maybe-undefined", WHOLE + "x if input.gpus[0].fwid != `matches`\n", "!="),
    "a text for a denial": (
        "denial-malformed",
        WHOLE + 'deny contains "OLD" if input.gpus\n',
        "is text, and no denial",
    ),
    "a text for a denial, by a name": (
        "denial-malformed",
        WHOLE + 'deny contains d if { input.gpus; d := "OLD" }\n',
        "is text, and no denial",
    ),
    "texts for denials": (
        "denial-malformed",
        WHOLE + "deny contains d if { input.gpus; d := [`OLD`] }\n",
        "is an array, and no denial",
    ),
    "a denial without a code": (
        "denial-malformed",
        WHOLE + 'deny contains d if { input.gpus; d := {"message": "old"} }\n',
        "the denial has no code",
    ),
    "a denial with a code in small letters": (
        "denial-malformed",
        WHOLE + 'deny contains d if { input.gpus; d := {"code": "gpu-old"} }\n',
        'write "GPU_OLD"',
    ),
    "a code that is a number": (
        "denial-malformed",
        WHOLE + 'deny contains d if { input.gpus; d := {"code": 7} }\n',
        "is a number, and no code",
    ),
    "a code of words": (
        "denial-malformed",
        importing("import data.weighbridge.lib")
        + 'deny contains d if { input.gpus; d := lib.denial("GPU is old", null, "old", null, null, null) }\n',
        'write "GPU_IS_OLD"',
    ),
    "a code by a name": (
        "denial-malformed",
        importing("import data.weighbridge.lib")
        + "old := `old`\n\ndeny contains lib.passing(lib.denial(old, null, `old`, null, null, null)) if input.gpus\n",
        "old is no code",
    ),
    "a driver's version by its letters": (
        "text-order",
        WHOLE + 'x if { some g in input.gpus; g.driver < "580.10" }\n',
        "lib.gpu_recent(gpu)",
    ),
    "a version on the left, of what is not known": (
        "text-order",
        WHOLE + "x if { some v in data.author.versions; `96.00.5E` >= v }\n",
        "compare texts letter by letter",
    ),
    "two texts of the document": ("text-order", WHOLE + "x if input.received_ns > input.gap.since\n", "to_number("),
    "a time by its letters": (
        "text-order",
        WHOLE + "x if { some g in input.gpus; some m in g.manifests; m.issued < `2026-01-01T00:00:00Z` }\n",
        "time.parse_rfc3339_ns(m.issued)",
    ),
    "what is no semantic version": (
        "text-order",
        WHOLE + "x if { some g in input.gpus; semver.compare(g.driver, `580.10.0`) < 0 }\n",
        "is no semantic version",
    ),
    "a documented name": ("function-forbidden", WHOLE + "x := crypto.sha256(`a`)\n", "missing in the engine"),
}

CASES: Final = {
    f"{kind}: {name}": case for kind, table in (("refused", REFUSED), ("found", FOUND)) for name, case in table.items()
}


@pytest.fixture(scope="module")
def findings() -> dict[str, tuple[CheckerFinding, ...]]:
    """What is found in every case, by its name."""
    texts = {name: text for name, (_, text, _) in CASES.items()}
    return checked({**texts, **{f"meant: {name}": text for name, (_, text, _) in MEANT.items()}})


@pytest.mark.parametrize("name", CASES)
def test_what_is_dangerous_is_found(findings: dict[str, tuple[CheckerFinding, ...]], name: str) -> None:
    number, text, message = CASES[name]
    found = [finding for finding in of_check(findings[name], number) if message in finding.message + finding.safe]
    assert found, findings[name]
    assert found[0].module == NAME
    assert 1 <= found[0].line <= text.count("\n") + 1
    assert found[0].column >= 1
    assert found[0].why
    assert found[0].safe


@pytest.mark.parametrize("name", MEANT)
def test_what_was_meant_is_said(findings: dict[str, tuple[CheckerFinding, ...]], name: str) -> None:
    number, _, meant = MEANT[name]
    assert any(meant in finding.safe for finding in of_check(findings[f"meant: {name}"], number)), findings[
        f"meant: {name}"
    ]


def test_every_check_has_a_dangerous_policy() -> None:
    """Those that are no matter of one parsed policy are shown where they are made."""
    elsewhere = {"syntax", "bounds", "opa-compiler", "author-data-unknown"}
    assert {case[0] for case in (*CASES.values(), *MEANT.values())} | elsewhere == set(CHECKS)


def test_findings_come_in_order_and_once(findings: dict[str, tuple[CheckerFinding, ...]]) -> None:
    for found in findings.values():
        assert list(found) == sorted(set(found))


def test_the_place_is_where_the_expression_begins(findings: dict[str, tuple[CheckerFinding, ...]]) -> None:
    (found,) = of_check(findings["refused: of an element"], "path-unknown")
    assert (found.line, found.column) == (10, 30)
    assert found.severity == "error"
