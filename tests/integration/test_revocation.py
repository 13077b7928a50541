"""An owner takes a model back while it is served: the commands as their users run them, in processes of their own."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.site import Factory, Running, Site, here
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHBRIDGE = "weighbridge"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    # A directory with a short name: the path of a Unix socket has at most 107 bytes.
    place = Path(tempfile.mkdtemp(prefix="wb-"))
    with Site(Factory(tmp_path), place) as made:
        yield made.prepare()
    shutil.rmtree(place, ignore_errors=True)


def test_a_revoked_model_closes_the_gate_and_the_bundle_shows_why(site: Site) -> None:
    factory, models, key = site.factory, site.directory / "models.set", site.directory / "owner.pem"
    owner, own = site.directory / "owner.json", site.directory / "own.json"
    model = Manifest.from_json(factory.manifest.read_bytes()).digest.hex()
    # Only the owner's set accepts the model: the relying party's document names none.
    reference = json.loads(factory.reference.read_bytes())
    own.write_text(json.dumps({**reference, "models": {}}))
    factory.reference = own

    def weighbridge(*arguments: object, status: ExitCode = ExitCode.AFFIRMED) -> str:
        done = here(WEIGHBRIDGE, *arguments)
        assert done.status == status, (done.out, done.err)
        return done.out

    weighbridge("model", "key", "Acme Models", "-o", key, "--anchors", owner)
    signing = ("--key", key, "-o", models)
    until = ("--valid-until", "2199-01-01T00:00:00Z")
    weighbridge("model", "sign", factory.manifest, "--owner", "Acme Models", "--number", 1, *until, *signing)
    accepting = models.read_bytes()
    token = site.state / "token"
    with Running(*site.serve_command("--models", models, "--anchors", owner)) as verifier:
        verifier.until(lambda it: any("listening on" in line for line in it.errors), "the verifier listens")
        with site.attesting("--windows", 60) as attester:
            attester.until_windows("affirmed", 2)
            assert token.is_file()
            weighbridge("model", "revoke", models, model, "--reason", "weights leaked", *signing)
            attester.until_windows("denied", 1)
            assert attester.end().status == ExitCode.DENIED
        assert not token.exists()
        assert any("number 2: 0 models, 1 revoked" in line for line in verifier.errors)
        # An older set does not bring it back, and the operator is told at once, window or not.
        models.write_bytes(accepting)
        verifier.until(lambda it: any(Code.REFERENCE_ROLLBACK in line for line in it.errors), "the rollback is told of")
        told = len(verifier.errors)
        verifier.process.send_signal(signal.SIGHUP)
        verifier.until(lambda it: len(it.errors) > told, "SIGHUP has the sets read again")
        assert verifier.terminate().status == ExitCode.AFFIRMED
    (session,) = site.sessions()
    assert session["state"] == "failed"

    bundle, policy = site.directory / "session.wb", ("--policy", "insecure_development")
    weighbridge("export", site.verifier, session["session"], "-o", bundle, *policy, "--manifest", factory.manifest)
    trusted = ("--anchors", factory.roots, "--anchors", site.verifier / "anchors.json")
    told_by = weighbridge("verify", "bundle", bundle, *trusted, status=ExitCode.DENIED)
    assert "MODEL_REVOKED: Acme Models has revoked the model: weights leaked" in told_by
    # A tenant who judges by what the owner says now, and by what it said then.
    judged = ("verify", "bundle", bundle, *trusted, *policy, "--reference", own, "--anchors", owner, "--models", models)
    weighbridge(*judged)
    weighbridge("verify", "bundle", bundle, *trusted, "--models", models, status=ExitCode.USAGE)
    weighbridge(*judged[:-4], "--models", models, status=ExitCode.NOT_AUTHENTIC)
