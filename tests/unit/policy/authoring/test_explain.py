"""Why a policy decides as it does: every rule of every shipped policy, in words, with both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weighbridge.policy import document as doc
from weighbridge.policy.authoring.attribution import Heads, open_bench
from weighbridge.policy.authoring.clauses import Clause, Clauses
from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.explain import Explainer, Explanation, Reason
from weighbridge.policy.authoring.reasons import Value
from weighbridge.policy.authoring.telling import because, examined, sentence, shown, tree
from weighbridge.policy.engine import DEFAULT_LIMITS, Limits
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicySet, Shipped, shipped
from weighbridge.proto.errors import PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.policy.authoring.telling import Line

AZURE, HOST, MEASURED = "azure_snp_h100", "bare_metal_tpm_h100", "in_baseline"
SWITCH = 8
DIFFERENCE = doc.GpuDifference(22, "driver", "Measurement_22", ("aa" * 48,), "bb" * 48, "another build")


ENERGY = doc.TelemetryFinding("energy", "power", "implausible", "4120 J to 4180 J", "3700 J")


@dataclass(frozen=True)
class Change:
    """One thing made wrong in an example, and what an explanation under ``production`` must then say."""

    example: str
    path: tuple[str | int, ...]
    value: object
    says: str
    also: tuple[tuple[tuple[str | int, ...], object], ...] = ()


def gpu(name: str, number: int = 0) -> tuple[str | int, ...]:
    return ("gpus", number, name)


def recorded(name: str) -> tuple[str | int, ...]:
    return ("telemetry", "devices", 0, name)


CHANGES = (
    Change(AZURE, ("window", "freshness"), "held", 'input.window.freshness is "held"'),
    Change(AZURE, ("platform", "boot_reference"), "mismatch", 'input.platform.boot_reference is "mismatch"'),
    Change(
        AZURE,
        ("platform", "differences"),
        (doc.BootDifference(4, ("aa" * 32,), "bb" * 32),),
        "PCR 4 is not as the host set",
        ((("platform", "boot_reference"), "mismatch"),),
    ),
    Change(AZURE, ("runtime", "violations"), 7, "input.runtime.violations is 7"),
    Change(AZURE, ("platform", "name"), "other", 'input.platform.name is "other"'),
    Change(AZURE, ("platform", "state_held_by"), "host", 'input.platform.state_held_by is "host"'),
    Change(AZURE, ("platform", "tee", "product"), "Milan", 'input.platform.tee.product is "Milan"'),
    Change(AZURE, ("gpus",), (), "gpus is an empty list"),
    Change(AZURE, gpu("fwid"), "missing", 'gpu.fwid is "missing"'),
    Change(AZURE, gpu("reference"), "absent", 'gpu.reference is "absent"'),
    Change(AZURE, gpu("mismatches"), 7, "gpu.mismatches is 7"),
    Change(
        AZURE,
        gpu("differences"),
        (DIFFERENCE,),
        'wanted was ["aaaaaaaaaaaa…"], and it is bbbbbbbbbbbb…',
        ((gpu("reference"), "mismatch"), (gpu("mismatches"), 1)),
    ),
    Change(AZURE, gpu("conflicts"), (3,), "gpu.conflicts is [3]"),
    Change(AZURE, gpu("minimum"), "below", 'gpu.minimum is "below"'),
    Change(AZURE, gpu("revocation"), "revoked", 'gpu.revocation is "revoked"'),
    Change(AZURE, gpu("cc_mode_host_claim"), "off", 'gpu.cc_mode_host_claim is "off"'),
    Change(AZURE, gpu("cc_mode_host_claim"), "devtools", 'gpu.cc_mode_host_claim is "devtools"'),
    Change(HOST, gpu("signed_locked", SWITCH), False, "gpu.signed_locked is false"),
    Change(AZURE, gpu("platform"), "other", 'gpu.platform is "other"'),
    Change(AZURE, ("weights", "declared"), (), "count(declared) is 0"),
    Change(AZURE, ("weights", "loaded"), (), "loaded is an empty list"),
    Change(AZURE, ("weights", "loaded", 0, "declared"), False, "model.declared is false"),
    Change(AZURE, ("weights", "declared", 0, "manifest"), "ff" * 32, 'data.reference.models has no "' + "ff" * 32),
    Change(AZURE, ("weights", "loaded", 0, "manifest"), "ff" * 32, 'data.reference.models has no "' + "ff" * 32),
    Change(
        AZURE,
        ("weights", "differences"),
        (doc.WeightDifference("model.safetensors", "x", "tensor", "a", "b"),),
        "wanted was a, and it is b",
    ),
    Change(AZURE, ("telemetry", "verdict"), "implausible", 'input.telemetry.verdict is "implausible"'),
    Change(MEASURED, recorded("verdict"), "out_of_baseline", 'device.verdict is "out_of_baseline"'),
    Change(MEASURED, recorded("verdict"), "implausible", "some_implausible"),
    Change(
        MEASURED,
        recorded("findings"),
        (ENERGY,),
        "the GPU's physical record cannot be: energy of power",
        ((recorded("verdict"), "implausible"),),
    ),
    Change(MEASURED, ("telemetry", "verdict"), "unusable", 'input.telemetry.verdict is "unusable"'),
    Change(AZURE, ("telemetry", "sources", 0, "platform"), "other", 'source.platform is "other"'),
    Change(AZURE, gpu("revocation"), "unknown", 'gpu.revocation is "unknown"'),
    # For the policies of one kind of machine.
    Change(AZURE, gpu("architecture"), "GB100", ""),
    Change(AZURE, gpu("reference_by"), "relying-party", ""),
    Change(AZURE, gpu("signed_feature"), None, ""),
    Change(HOST, gpu("architecture"), "GB100", ""),
    Change(HOST, ("platform", "name"), "amd-sev-snp", ""),
    Change(HOST, ("platform", "secure_boot"), "unproven", ""),
)
# No document can be so: it is another schema, lacks a list, or has a word that is none.
UNREACHABLE = {
    "the input document has another schema",
    "the input document lacks a list",
    "it is not shown that the loaded weights are the declared ones",
    "the beginning of the measurement log is not explained",
}


def put(value: Any, path: tuple[str | int, ...], new: object) -> Any:  # noqa: ANN401 - any part of a document
    """``value`` with something else at ``path``."""
    if not path:
        return new
    first, *rest = path
    if isinstance(first, int):
        return (*value[:first], put(value[first], tuple(rest), new), *value[first + 1 :])
    return replace(value, **{first: put(getattr(value, first), tuple(rest), new)})


def changed(change: Change) -> doc.PolicyInput:
    document = EXAMPLES[change.example].input
    for path, value in ((change.path, change.value), *change.also):
        document = put(document, path, value)
    return document


@pytest.fixture(scope="module")
def explainers() -> Iterator[Callable[[Shipped, str], Explainer]]:
    made: dict[tuple[str, str], Explainer] = {}

    def of(name: Shipped, example: str) -> Explainer:
        key = (name, example)
        if key not in made:
            made[key] = Explainer(shipped(name, reference=EXAMPLES[example].reference))
        return made[key]

    yield of
    for explainer in made.values():
        explainer.close()


def explained(reason: Reason) -> bool:
    """Whether it says which rule, which line, and why."""
    return bool(reason.grounds) and bool(because(reason)) and all(item.statements for item in reason.grounds)


@pytest.mark.parametrize("change", [item for item in CHANGES if item.says], ids=lambda item: item.says)
def test_a_reason_names_what_was_made_wrong(explainers: Callable[[Shipped, str], Explainer], change: Change) -> None:
    document = changed(change)
    explanation = explainers("production", change.example).explain(document)
    told = [sentence(reason, document) for reason in explanation.reasons]
    assert any(change.says in one and "weighbridge/" in one for one in told), told
    assert explanation.note == ""


@pytest.mark.parametrize("name", get_args(Shipped))
def test_every_rule_of_every_shipped_policy_is_explained(
    explainers: Callable[[Shipped, str], Explainer], name: Shipped
) -> None:
    """Each by some change, named with its place, and with the statements that make it."""
    seen: set[Clause] = set()
    for change in CHANGES:
        document = changed(change)
        explanation = explainers(name, change.example).explain(document)
        assert explanation.note == ""
        assert explanation.failed is None
        assert (explanation.decision.outcome == "allow") == (explanation.reasons == ())
        for reason in explanation.reasons:
            assert reason.made_by or reason.invariant
            assert not reason.made_by or explained(reason), sentence(reason, document)
            seen |= {item.clause for item in reason.grounds}
    clauses = denying(shipped(name, reference=EXAMPLES[AZURE].reference))
    missing = {clause for clause in clauses if clause not in seen}
    assert {clauses[clause] for clause in missing} <= UNREACHABLE


def denying(policy: PolicySet) -> dict[Clause, str]:
    """Every clause that says something itself, and one of the unreachable sentences if it says that."""
    with open_bench(policy, DEFAULT_LIMITS) as bench:
        heads = Heads(Clauses(bench.syntax))
    found: dict[Clause, str] = {}
    for head in heads.all():
        if not head.passes_on:
            text = head.source.module.source(head.source.rule.span)
            found[head.clause] = next((said for said in UNREACHABLE if said in text), "")
    return found


HEAD = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	input.work.requests > 1000000
}

allow if input.session.tenant == "nobody"

"""


def explain(policy: PolicySet, document: doc.PolicyInput, limits: Limits = DEFAULT_LIMITS) -> Explanation:
    with Explainer(policy, limits=limits) as explainer:
        return explainer.explain(document)


def ground(rules: str, good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]) -> str:
    """Why a policy with these rules denies the good document: one reason, without the place."""
    (reason,) = explain(policy_of(HEAD + rules), good).reasons
    return because(reason)


def denial(*statements: str) -> str:
    lines = "".join(f"\t{statement}\n" for statement in statements)
    return f'deny contains d if {{\n{lines}\td := lib.denial("TEST_X", null, "m", null, null, null)\n}}\n\n'


GROUNDS = {
    "comparison": (
        denial('not input.session.tenant == "acme"'),
        'input.session.tenant == "acme" is not so: input.session.tenant is "tenant"',
    ),
    "comparison that holds": (denial("input.window.seq > 2"), "input.window.seq is 3"),
    "builtin": (denial("count(input.gpus) == 2"), "count(input.gpus) is 2"),
    "membership": (
        denial("tenant := input.session.tenant", 'not tenant in {"a", "b"}'),
        'tenant in {"a", "b"} is not so: tenant is "tenant"',
    ),
    "index": (
        denial("not known") + "known if data.author.names[input.session.tenant]",
        "data.author.names[input.session.tenant] has no value: data.author has no names",
    ),
    "path": (denial("not data.author.names.x"), "data.author.names.x has no value: data.author has no names"),
    "not in a rule": (
        denial("not both") + "both if {\n\tinput.window.seq == 3\n\tnot early\n}\n\nearly if input.window.seq < 5",
        "both (test.rego:20) needs not early, and it is so",
    ),
    "every": (
        denial("not all") + "all if {\n\tcount(input.gpus) > 0\n\tevery gpu in input.gpus { first(gpu) }\n}\n\n"
        'first(gpu) if gpu.driver == "1"',
        'that needs first(gpu), which needs gpu.driver == "1", and gpu.driver is "550"',
    ),
    "value of a function": (
        denial("seq := input.window.seq", "not text(seq)") + 'text(3) := x if x := data.author.words["three"]',
        "data.author has no words",
    ),
    "else": (
        denial("seq := input.window.seq", "not level(seq)")
        + "level(seq) := 1 if {\n\tseq < 2\n} else := 2 if {\n\tseq == 9\n}",
        "the nearest of 2 ways) needs seq < 2, and seq is 3",
    ),
    "pattern": (
        denial("pair_ := [input.window.seq, 1]", "not pair(pair_)") + "pair([seq, _]) if seq == 4",
        "pair(pair_) (test.rego:21) needs more than can be shown here",
    ),
    "no argument that matters": (
        denial("not any_of(1)") + "any_of(_) if input.window.seq == 9",
        "needs input.window.seq == 9, and input.window.seq is 3",
    ),
    "element of a set": (
        denial('not "b" in listed') + 'listed contains "b" if input.window.seq == 9',
        '"b" in listed (test.rego:20) needs input.window.seq == 9, and input.window.seq is 3',
    ),
    "what a set lacks": (
        denial("some gap in wanted - have") + 'wanted := {"x"}\n\nhave contains "x" if input.window.seq == 4',
        '"x" is not in have: that (test.rego:22) needs input.window.seq == 4, and input.window.seq is 3',
    ),
    "elements": (denial("some source in input.telemetry.sources"), "source is "),
    "nothing": (denial("true"), "it asks for nothing: it denies always"),
}


@pytest.mark.parametrize(("rules", "words"), GROUNDS.values(), ids=GROUNDS)
def test_grounds_in_words(good: doc.PolicyInput, policy_of: Callable[[str], PolicySet], rules: str, words: str) -> None:
    assert words in ground(rules, good, policy_of)


def test_an_allow_that_does_not_hold_says_what_it_lacks(
    good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    rules = denial("input.window.seq == 99")
    explanation = explain(policy_of(HEAD + rules), good)
    assert [reason.denial.code for reason in explanation.reasons] == ["POLICY_DENIED"]
    nearest = max(explanation.refused, key=lambda way: way.held)
    assert (nearest.held, nearest.of) == (1, 2)
    assert nearest.failures[0].statement.text == "input.work.requests > 1000000"
    assert texts(tree(explanation))[1:3] == ["no rule of this policy says it", "allow is not true"]


def texts(lines: tuple[Line, ...]) -> list[str]:
    return [text for line in lines for text in (line.text, *texts(line.below))]


def test_an_admitted_window_says_what_held_and_who_looked(explainers: Callable[[Shipped, str], Explainer]) -> None:
    example = EXAMPLES[AZURE]
    explanation = explainers("azure_snp_h100", AZURE).explain(example.input)
    assert explanation.decision.allowed
    (allow,) = explanation.allow
    assert next(item.text for item in allow.statements) == "count(deny) == 0"
    assert all(item.holds for item in allow.statements)
    assert len(explanation.examined) > 30
    assert examined(explanation).endswith("rules could have denied it, and did not")
    told = "\n".join(texts(tree(explanation)))
    assert "weighbridge/lib.rego lines " in told


def test_what_ends_in_an_error_only_when_it_is_looked_into_is_noted(
    good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    """An `else` that the decision does not come to is evaluated for the explanation alone."""
    rules = denial("seq := input.window.seq", "not ok(seq)")
    rules += 'ok(seq) := false if {\n\tseq == 3\n} else := true if {\n\tto_number("x") == 1\n}\n\n'
    other = denial("input.window.seq == 3").replace("TEST_X", "TEST_Y")
    explanation = explain(policy_of(HEAD + rules + other), good)
    found = {reason.denial.code: reason for reason in explanation.reasons}
    assert because(found["TEST_Y"]) == "input.window.seq is 3"
    assert found["TEST_X"].made_by
    assert found["TEST_X"].grounds == ()
    assert explanation.note.startswith("a rule could not be looked into: ")
    told = texts(tree(explanation))
    assert "its rules could not be looked into" in told


def test_a_clause_that_is_too_long_is_named_and_not_looked_into(
    good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    body = "\n".join(f"\tinput.window.seq < {number + 10}" for number in range(40))
    rules = denial("not long") + f"long if {{\n{body}\n\tinput.window.seq == 4\n}}\n"
    assert "long (test.rego:20) needs more than can be shown here" in ground(rules, good, policy_of)


def test_an_error_names_the_line(good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]) -> None:
    explanation = explain(policy_of(HEAD + denial('to_number("x") == 1')), good)
    assert explanation.decision.outcome == "error"
    assert explanation.failed is not None
    assert explanation.failed.clause == Clause("test.rego", 15, "deny")
    assert explanation.failed.source == 'to_number("x") == 1'


def slow(*, name: str = "slow") -> str:
    """A rule without arguments that no deadline sees the end of."""
    tens = ", ".join(["ten"] * 80)
    lines = ['ten := "0123456789"', f'many := split(concat("", [{tens}]), "")', *(f"some {x} in many" for x in "abc")]
    body = "".join(f"\t{line}\n" for line in (*lines, 'a == concat(b, [c, "x"])'))
    return f"{name} if {{\n{body}}}\n\n"


def test_a_rule_that_takes_too_long_is_named(good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]) -> None:
    rules = denial("input.window.seq == 99") + denial("slow").replace("TEST_X", "TEST_Y") + slow()
    explanation = explain(policy_of(HEAD + rules), good, Limits(decide_seconds=0.5))
    assert explanation.decision.outcome == "timeout"
    assert explanation.failed is not None
    assert (str(explanation.failed.clause), explanation.failed.what) == ("test.rego:20", "it takes too long")
    assert explanation.failed.source.startswith("deny contains d if { slow")


def test_where_no_single_rule_takes_too_long_none_is_named(
    good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    """A decision that came to no end on a busy machine, of a policy that is quick."""
    policy = policy_of(HEAD + denial("input.window.seq == 3"))
    with Explainer(policy) as explainer:
        decision = explainer.decide(good)
        for outcome in ("timeout", "undefined", "disagree"):
            found = explainer.of(good, replace(decision, outcome=outcome, detail="the engine's words"))
            assert found.failed is None
            assert [reason.denial for reason in found.reasons] == list(decision.denials)
        # What it said last is no matter for what it says next.
        (reason,) = explainer.of(good, decision).reasons
        assert because(reason) == "input.window.seq is 3"


def test_a_policy_that_does_not_load_is_refused_and_a_closed_explainer_is_misuse(
    good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    with pytest.raises(PolicyDenied, match="POLICY_INVALID"):
        Explainer(policy_of("package weighbridge.policy\n\nallow if {\n"))
    explainer = Explainer(policy_of(HEAD + denial("input.window.seq == 3")))
    explainer.close()
    explainer.close()
    with pytest.raises(RuntimeError):
        explainer.explain(good)


def test_a_policy_that_is_loaded_already_is_asked(good: doc.PolicyInput, policy_of: Callable[[str], PolicySet]) -> None:
    policy = policy_of(HEAD + denial("input.window.seq == 3"))
    with RegorusEngine().load(policy) as prepared:
        with Explainer(policy, prepared) as explainer:
            assert explainer.explain(good).reasons[0].made_by
        assert prepared.decide(good).outcome == "deny"


def test_values_are_shown_by_their_beginning() -> None:
    assert shown(Value("string", "ab" * 32, 64)) == '"abababababab…"'
    assert shown(Value("string", "x" * 100, 100)) == f'"{"x" * 72}…" (100 characters)'
    assert shown(Value("array", [1, True, None, "a", {"is": "set", "n": 2, "v": None}], 9)) == (
        '[1, true, null, "a", a set of 2, … (9)]'
    )
    assert shown(Value("set", [], 0)) == "an empty set"
    assert shown(Value("object", {"name": "n", "identity": "ab" * 32, "deep": {"is": "array", "n": 1}}, 3)) == (
        'name "n", identity "abababababab…"'
    )
    assert shown(Value("object", {"deep": {"is": "array", "n": 1}}, 1)) == "an object of 1"


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if is_dataclass(value):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, tuple):
        yield path, value
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    else:
        yield path, value


def otherwise(value: Any) -> Any:  # noqa: ANN401 - as above
    match value:
        case tuple():
            return value[:0] or value
        case bool():
            return not value
        case int():
            return value + 7
        case None:
            return "something"
        case _:
            return f"{value}x"


LEAVES = [path for path, _ in leaves(EXAMPLES["emulated"].input) if path not in (("received_ns",), ("received_at",))]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(LEAVES), max_size=4), st.sampled_from(["production", "insecure_development"]))
def test_whatever_can_be_decided_can_be_explained(
    explainers: Callable[[Shipped, str], Explainer], paths: list[tuple[str | int, ...]], name: Shipped
) -> None:
    document = EXAMPLES["emulated"].input
    explainer = explainers(name, "emulated")
    found = dict(leaves(document))
    for path in paths:
        try:
            other = put(document, path, otherwise(found[path]))
            other.to_json()
        except (TypeError, IndexError):
            continue
        document = other
    explanation = explainer.explain(document)
    assert [reason.denial for reason in explanation.reasons] == list(explanation.decision.denials)
    assert explanation.decision == replace(explainer.decide(document))
    for reason in explanation.reasons:
        assert reason.invariant or explained(reason), sentence(reason, document)
    assert json.dumps([asdict(reason) for reason in explanation.reasons])
    assert tree(explanation)
