"""What the checker can find: one table of every check, and the finding itself.

An **error** is a policy that can admit more than it reads, or of which nobody can say what it does: it is not loaded.
A **warning** is a rule that says less than it reads, or nothing; it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["CHECKS", "Check", "CheckerFinding", "Severity", "errors"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its stable name, what it refuses, why that is dangerous, and what to write instead."""

    id: str
    severity: Severity
    title: str
    why: str
    safe: str


_TABLE: Final = (
    # -- what a policy must have
    Check(
        "package",
        "error",
        "a module outside of the author's package",
        "rules of one package are merged: a module in the library's or in the reference values' would change them",
        "package weighbridge.policy",
    ),
    Check(
        "whole-package",
        "error",
        "the whole package, imported or looked at",
        "regorus takes a package in several modules for evaluated when the first of them is: rules of the others, "
        "denials too, are lost",
        "one rule of it: deny, or data.weighbridge.lib.always",
    ),
    Check(
        "entry-rule",
        "error",
        "allow, deny or another rule of the decision in another form, or no deny at all",
        "only an exact true of allow and an empty set deny admit: another form has no safe reading",
        "deny contains d if { …; d := lib.denial(…) }",
    ),
    Check(
        "default-missing",
        "error",
        "a rule of the decision without the default that makes it total",
        "without a default the rule is undefined when no clause holds, which is no answer and not a no",
        "default allow := false",
    ),
    Check(
        "default-twice",
        "error",
        "two defaults of one rule",
        "OPA refuses the policy, regorus takes one of the two",
        "keep one default",
    ),
    Check(
        "deny-without-library",
        "warning",
        "deny leaves out the denials that every policy has",
        "a revoked GPU, a held window or undeclared weights are then refused only if this policy does so itself",
        "deny contains d if some d in lib.always",
    ),
    Check(
        "allow-ignores-deny",
        "warning",
        "allow does not look at deny",
        "the decision needs both; whoever reads allow alone takes a refused window for an admitted one",
        "allow if count(deny) == 0",
    ),
    # -- names
    Check(
        "function-unknown",
        "error",
        "a call of a function that does not exist",
        "regorus notices it only when the call is reached, rego-cpp takes it for undefined, under not for true",
        "call an allowed builtin, a function of the library's or one of yours",
    ),
    Check(
        "function-forbidden",
        "error",
        "a builtin that policies may not call",
        "a verdict must be the same for whoever makes it again, made of the document alone, and within its time",
        "use what the document says; the time is time.now_ns(), the window's receipt",
    ),
    Check(
        "print-in-policy",
        "error",
        "print outside of tests",
        "engines differ in what print of something undefined does; a policy in force has nobody to read it",
        "keep print to *_test.rego and to weighbridge policy eval",
    ),
    Check(
        "arity",
        "error",
        "a call with too few or too many arguments",
        "engines notice it only when the call is reached; OPA takes one argument too many for the result",
        "give it as many arguments as it takes",
    ),
    Check(
        "path-unknown",
        "error",
        "a path into the document, the reference values or the rules that leads nowhere",
        "what does not exist is undefined: a denial that looks at it never comes, and its not always holds",
        "weighbridge policy docs lists every path",
    ),
    Check(
        "author-data-unknown",
        "error",
        "a path under data.author that leads nowhere in the author's data.json",
        "what does not exist is undefined: a denial that looks at it never comes, and its not always holds",
        "add it to data.json; what may be absent: object.get(data.author, name, default)",
    ),
    Check(
        "unbound",
        "error",
        "a variable that is not bound where it is used",
        "OPA refuses to compile it; regorus loads it, and fails when it judges",
        "bind it with := or some … in",
    ),
    Check(
        "some-unbound",
        "error",
        "some without in",
        "it declares a name and binds nothing: whether the name ends as a search or an error depends on the engine",
        "some x in …, or some i, _ in …",
    ),
    Check(
        "name-taken",
        "error",
        "one name with two meanings",
        "which of the two a line means is decided by rules that differ between engines, not by its reader",
        "choose another name",
    ),
    Check(
        "unify",
        "error",
        "=, which both compares and binds",
        "a misspelt name is then bound in place of being compared, and the line always holds",
        "== to compare, := to bind",
    ),
    Check(
        "with",
        "error",
        "with, outside of tests or of something else than documents",
        "a rule judged under another input or other reference values is not judged by the evidence",
        "keep with to *_test.rego, and to input, data.reference and data.author",
    ),
    Check(
        "recursion",
        "error",
        "a rule or function that depends on itself",
        "it ends the engine's process (regorus: a segmentation fault)",
        "go over a list with some … in",
    ),
    # -- undefined
    Check(
        "not-maybe-undefined",
        "error",
        "a call, a membership or anything computed under not, of something that may be undefined",
        "where it is undefined OPA says that the line does not hold, regorus that it does (open-policy-agent/opa#8387)",
        "ok if f(x), as a rule of its own, and not ok; of what is always there also v := x; not f(v)",
    ),
    Check(
        "not-wildcard",
        "error",
        "an index without a name under not",
        "regorus takes it for: some element has it not; OPA refuses to compile it",
        "some x in xs; not f(x)",
    ),
    Check(
        "head-unbound",
        "error",
        "the head of a set or an object that may be undefined",
        "regorus loses the whole set where the head is undefined for the last element: one element more, no denial",
        "deny contains d if { …; d := … }",
    ),
    Check(
        "denial-maybe-undefined",
        "error",
        "a denial that takes something that may be undefined",
        "where it is undefined the denial is, and never comes, whatever else its rule has found",
        "lib.field(x, name), or object.get(x, name, null)",
    ),
    Check(
        "denial-malformed",
        "error",
        "an element of deny that is no denial, or a code that is none",
        "no verifier can read it: where it comes, POLICY_OUTPUT stands in place of every reason",
        'lib.denial("CODE", device, message, expected, got, hint), the code of 2 to 64 of A-Z, 0-9, _ from a letter on',
    ),
    Check(
        "unequal-maybe-undefined",
        "error",
        "!= of something that may be undefined",
        "where it is absent, != is undefined and so not true: a denial that rests on it never comes",
        "not x == y",
    ),
    Check(
        "every-maybe-empty",
        "error",
        "every over what may be empty",
        "it holds for an empty list: of no GPU at all every GPU is good",
        "count(xs) > 0 before it",
    ),
    Check(
        "all-maybe-empty",
        "warning",
        "none of a list that may be empty is bad",
        "it holds for an empty list as every does: nothing was looked at",
        "count(xs) > 0 beside it",
    ),
    # -- what never holds
    Check(
        "word-unknown",
        "error",
        "a comparison with a word that the field never has",
        "== never holds and != always does: a denial that rests on it never comes",
        "one of the words that weighbridge policy docs lists",
    ),
    Check(
        "type-mismatch",
        "error",
        "a comparison of two types that are never equal",
        "text never equals a number, an array never a set, and < between types holds or not by the types alone",
        "compare values of one type; large numbers are text in the document",
    ),
    Check(
        "contradiction",
        "error",
        "two lines of one body that exclude each other",
        "the rule never holds: a denial like this never comes",
        "one rule for each of the two cases",
    ),
    Check(
        "count-bound",
        "error",
        "a comparison of count that always or never holds",
        "count is never below 0: count(x) < 0 never holds, count(x) >= 0 always does, also of a full deny",
        "count(x) == 0, or count(x) > 0",
    ),
    Check(
        "text-order",
        "warning",
        "texts compared by their order, or what is no semantic version by semver.compare",
        "texts are ordered letter by letter, 580.9 after 580.10; semver.compare of 580.9 is an error",
        "gpu_minimum of the reference values and lib.gpu_recent, or numbers",
    ),
    Check(
        "null-never",
        "warning",
        "a comparison with null of a field that is never null",
        "what is unknown says so in a word of its own: the rule does not mean what it reads",
        "compare with the word",
    ),
    Check(
        "after-false",
        "warning",
        "lines beside false",
        "the body never holds, whatever else is in it",
        "remove false, or the rule",
    ),
    # -- what nothing uses
    Check(
        "unused-rule",
        "warning",
        "a rule or function that nothing of the decision reaches",
        "it decides nothing, and its reader believes that it does",
        "use it from allow or deny, or remove it",
    ),
    Check(
        "unused-import",
        "warning",
        "an import that nothing uses",
        "often what was to be used is misspelt below",
        "remove it",
    ),
    Check(
        "unused-variable",
        "warning",
        "a variable that nothing looks at",
        "often the line that was to look at it is missing, or means another name",
        "remove it; where only the others of its line matter, write _",
    ),
    # -- what is no policy at all
    Check(
        "syntax",
        "error",
        "the module does not parse",
        "nothing of it can be judged",
        "correct what the engine names",
    ),
    Check(
        "bounds",
        "error",
        "a module that is too large, too wide, nested too deeply or no text",
        "a parser takes time exponential in nesting, a deep tree ends its process, and what is no text hides rules",
        "keep it short and flat: the inner part can be a rule or a function of its own",
    ),
    Check(
        "opa-compiler",
        "error",
        "OPA refuses to compile the module (only where OPA is asked, too)",
        "two engines read the policy differently: one of them reads it otherwise than its author",
        "correct what OPA names",
    ),
)

CHECKS: Final[Mapping[str, Check]] = MappingProxyType({check.id: check for check in _TABLE})
"""Every check by its name, in the order in which they are listed."""


@dataclass(frozen=True, slots=True, order=True)
class CheckerFinding:
    """What is found, and where: ``line`` and ``column`` from 1, the column in characters; ``check`` is a name."""

    module: str
    line: int
    column: int
    check: str
    message: str
    hint: str

    @property
    def severity(self) -> Severity:
        """``error``: the policy is not loaded."""
        return CHECKS[self.check].severity

    @property
    def why(self) -> str:
        """Why it is dangerous, as of the check."""
        return CHECKS[self.check].why

    @property
    def safe(self) -> str:
        """What to write: the finding's own advice, or the check's."""
        return self.hint or CHECKS[self.check].safe


def errors(findings: Iterable[CheckerFinding]) -> tuple[CheckerFinding, ...]:
    """Those for which a policy is not loaded."""
    return tuple(finding for finding in findings if finding.severity == "error")
