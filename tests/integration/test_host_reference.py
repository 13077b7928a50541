"""A host is learned from the session that it had, and the next one is judged beside what was learned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.site import Factory, Running, Site, here
from weighbridge.policy.values.reference import Reference
from weighbridge.verifier.bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

PCRS = list(range(8))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("factory", "site"):
        (tmp_path / name).mkdir()
    return Site(Factory(tmp_path / "factory"), tmp_path / "site")


def test_from_a_session_to_the_values_by_which_the_next_is_judged(site: Site, tmp_path: Path) -> None:
    key, anchors, made = tmp_path / "hosts.pem", tmp_path / "hosts.json", tmp_path / "host.set"
    assert here("weighbridge", "reference", "key", "Acme Hosting", "-o", key, "--anchors", anchors).status == 0
    with site:
        site.prepare()
        with site.serving() as verifier:
            with site.attesting("--windows", 1) as attester:
                attester.until_windows("affirmed", 1)
                assert attester.end().status == 0
            verifier.terminate()
        (session,) = [item["session"] for item in site.sessions()]
        done = here(
            "weighbridge", "reference", "learn", site.verifier, "--session", session, "--anchors", site.factory.roots,
            "--name", "gpu-node", "--owner", "Acme Hosting", "--number", 1, "--days", 90, "--firmware", "--key", key,
            "-o", made, "--json",
        )  # fmt: skip
        assert done.status == 0, done.err
        learned = json.loads(done.out)["learned"]
        assert (learned["session"], sorted(learned["pcrs"])) == (session, [str(index) for index in PCRS])
        with Running(*site.serve_command("--hosts", made, "--anchors", anchors)) as verifier:
            verifier.until(lambda it: any("listening on" in line for line in it.errors), "the verifier listens")
            assert any(line.startswith("host set of Acme Hosting, gpu-node, number 1:") for line in verifier.errors)
            with site.attesting("--windows", 1) as attester:
                attester.until_windows("affirmed", 1)
                assert attester.end().status == 0
            verifier.terminate()
        later = next(item["session"] for item in site.sessions() if item["session"] != session)
        site.check_recorded(later)
    # Made again, byte for byte, from the file alone: the set is in it.
    (recorded,) = Bundle.parse((site.directory / f"{later}.wb").read_bytes()).references
    (host,) = Reference.recorded(recorded).hosts
    assert (host.owner, host.name, sorted(host.pcrs)) == ("Acme Hosting", "gpu-node", PCRS)
    assert host.firmware is not None
    assert [f"{version:016x}" for version in host.firmware] == [learned["firmware"]]
