"""A host's part of an appraisal: what is taken over from a host set that matches, and what from one that does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from corpus.arena import Arena
from eventlog_support import SHA256
from fakes.boot_logs import STRICT_LINE, Boot, sha256_name
from support.world import NOON
from weighbridge.policy import document
from weighbridge.policy.values.host_sets import HostSet
from weighbridge.policy.values.reference import Reference
from weighbridge.verifier.boot import boot_facts
from weighbridge.verifier.boot.attester_code import DEMANDS
from weighbridge.verifier.boot.runtime import RuntimeLog
from weighbridge.verifier.host_appraisal import HostAppraisal, appraise_host
from weighbridge.verifier.procedure import VerifiedWindow, authenticate, verify_window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import Engines
    from weighbridge.verifier.session import Enrolled

LONG: Final = "/" + "long" * 100
FILES: Final = {f"/usr/bin/{number:02}": b"program %d" % number for number in range(18)} | {LONG: b"under a long name"}
NAMES: Final = frozenset(sha256_name(content) for content in FILES.values())
NOTHING: Final[frozenset[str]] = frozenset()
# All but the command line's and the kernel's own, which no host set says anything of.
OWNERS_WORD: Final = {"boot-chain", "closed-set", "attester-measured"}


@dataclass(frozen=True)
class Booted:
    """A genuine window, put on a host that booted as its owner accepts."""

    window: VerifiedWindow
    enrolled: Enrolled

    def appraise(self, *hosts: HostSet) -> HostAppraisal:
        return appraise_host(self.window, self.enrolled, Reference({}, {}, {}).with_hosts(hosts), at=NOON)

    def accepted(self, **changes: object) -> HostSet:
        """What the owner signs of it."""
        values: dict[str, object] = {
            "owner": "host owner",
            "name": "rack",
            "number": 1,
            "digest": "5e" * 32,
            "not_before": NOON - timedelta(days=1),
            "not_after": NOON + timedelta(days=1),
            "pcrs": {pcr: (self.window.quote.pcrs[pcr],) for pcr in (0, 2, 4, 8, 9, 11, 12, 13, 14)},
            "firmware": None,
            "files": NAMES,
            "attester": NAMES,
        }
        return HostSet(**(values | changes))  # type: ignore[arg-type]  # a test names fields that exist


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory, engines: Engines) -> Iterator[Booted]:
    arena = Arena(tmp_path_factory.mktemp("booted"), engines)
    world = arena.settled(0)
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    window = verify_window(
        authenticate(world.host.seal().evidence, enrolled=live.enrolled, peer=world.host.peer),
        enrolled=live.enrolled,
        position=live.position,
        held=False,
        spot=None,
        anchors=world.anchors,
        at=world.clock.at,
    )
    boot = Boot()
    boot.uki(STRICT_LINE)
    boot.kernel(FILES)
    boot.violate("/usr/bin/00")
    list_of_files = b"".join(boot.runtime)
    runtime = RuntimeLog.empty().extended(list_of_files, quoted=boot.values[SHA256, 10], bank=SHA256)
    facts = boot_facts(boot.logs(), boot.quoted(), SHA256)
    quote = replace(window.quote, pcrs=boot.quoted())
    yield Booted(replace(window, quote=quote, runtime=runtime), replace(live.enrolled, boot=facts))
    arena.close()


def test_a_host_that_is_known(booted: Booted) -> None:
    found = booted.appraise(booted.accepted())
    assert found == HostAppraisal(
        boot_reference="match",
        name="rack",
        differences=(),
        reasons=(),
        expired=None,
        host_binding="unproven",
        secure_boot="proven",
        kernel_lockdown="proven",
        # A file was open for writing while it was measured.
        attester_code=document.AttesterCode("unproven", ("ima-violation",)),
        runtime=document.Runtime(present=True, entries=len(FILES) + 2, violations=1, unknown=0, examples=()),
    )


def test_a_host_that_nobody_knows(booted: Booted) -> None:
    found = booted.appraise()
    assert (found.boot_reference, found.name, found.differences, found.reasons) == ("absent", None, (), ())
    assert not OWNERS_WORD - set(found.attester_code.missing)
    # It boots as it should, but a command line counts only where its owner accepts the registers that name it.
    assert (found.secure_boot, found.kernel_lockdown) == ("proven", "unproven")


def test_strangers_are_counted_and_some_are_named(booted: Booted) -> None:
    runtime = booted.appraise().runtime
    assert (runtime.unknown, len(runtime.examples)) == (len(FILES), 16)
    assert runtime.examples[0] == document.MeasuredFile(sha256_name(b"program 0"), "/usr/bin/00")
    but_one = NAMES - {sha256_name(FILES[LONG])}
    runtime = booted.appraise(booted.accepted(files=but_one, attester=but_one)).runtime
    assert (runtime.unknown, len(runtime.examples)) == (1, 1)
    assert (len(runtime.examples[0].path), runtime.examples[0].path[:244]) == (257, LONG[:244])


def test_nothing_is_taken_over_from_a_set_that_does_not_match(booted: Booted) -> None:
    """Its owner accepts another host: that these files may run says nothing of this one."""
    good = booted.accepted()
    other = replace(good, pcrs={**good.pcrs, 4: (b"\x04" * 32, b"\x05" * 32), 23: (b"\x06" * 32,)})
    found = booted.appraise(other)
    assert (found.boot_reference, found.name, found.expired) == ("mismatch", "rack", None)
    quoted = booted.window.quote.pcrs[4].hex()
    assert found.differences == (
        document.BootDifference(4, ("04" * 32, "05" * 32), quoted),
        document.BootDifference(23, ("06" * 32,), None),
    )
    assert [reason.split()[:2] for reason in found.reasons] == [["PCR", "4"], ["PCR", "23"]]
    assert found.runtime == booted.appraise().runtime
    assert found.attester_code == booted.appraise().attester_code


def test_a_set_that_would_match_at_another_time_is_told(booted: Booted) -> None:
    late = booted.accepted(not_after=NOON - timedelta(seconds=1))
    found = booted.appraise(late)
    assert (found.boot_reference, found.expired, found.differences) == ("mismatch", late, ())
    assert len(found.reasons) == 1


def test_of_several_sets_that_counts_which_proves_most(booted: Booted) -> None:
    """Not that which says most of the host: its attester is another one, and what it lets run is not this."""
    good = booted.accepted()
    own = frozenset({sha256_name(b"the next version")})
    strict = replace(
        good, name="strict", pcrs={**good.pcrs, 7: (booted.window.quote.pcrs[7],)}, files=own, attester=own
    )
    loose = replace(good, name="loose", pcrs={0: good.pcrs[0]}, files=NOTHING, attester=NOTHING)
    for hosts in ((strict, good, loose), (loose, good, strict)):
        found = booted.appraise(*hosts)
        assert (found.name, found.attester_code.missing, found.runtime.unknown) == ("rack", ("ima-violation",), 0)
    assert booted.appraise(strict, loose).name == "strict"


def test_without_logs_nothing_is_known(booted: Booted) -> None:
    window, enrolled = replace(booted.window, runtime=None), replace(booted.enrolled, boot=None)
    found = Booted(window, enrolled).appraise(booted.accepted())
    assert (found.boot_reference, found.runtime) == ("match", document.Runtime())
    assert not found.runtime.present
    # The TPM is one of its own, whose maker is believed.
    assert found.attester_code.missing == tuple(demand.key for demand in DEMANDS if demand.key != "tpm")
    assert (found.secure_boot, found.kernel_lockdown) == ("unproven", "unproven")
