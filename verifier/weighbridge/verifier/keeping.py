"""Keeps what a record names before the record is: without it, nobody could make its verdict again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.appraisal import Appraiser, Verdict
    from weighbridge.verifier.archive import Archive

__all__ = ["Keeper"]

# A busy verifier judges by a handful of policies and by the newest values: what is forgotten is written once more.
_KNOWN_MAX: Final = 1024


@final
class Keeper:
    """Writes policies, values, baselines, manifests and collateral into an archive, each once while remembered."""

    __slots__ = ("_archive", "_kept")

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._kept: set[bytes] = {NO_DIGEST}

    def keep(self, verdict: Verdict, appraiser: Appraiser, terms: Terms) -> None:
        """Keep what ``verdict`` was made by; ``appraiser`` has made it, in the session of ``terms``.

        Raises:
            EnvironmentFault: as :meth:`.Archive.commit`.
            RuntimeError: the files of the policy that decided, or of a baseline in force, are not known: its verdict
                could not be recorded.
        """
        if len(self._kept) > _KNOWN_MAX:
            self._kept = {NO_DIGEST}
        if verdict.reference is not None and verdict.reference not in self._kept:
            self._keep_baselines(appraiser)
            self._kept.add(self._archive.keep_reference(appraiser.reference.to_json()))
        if verdict.reference is not None:
            self._keep_manifests(appraiser, terms)
        if verdict.collateral is not None and verdict.collateral not in self._kept:
            self._kept.add(self._archive.keep_collateral(appraiser.published.collateral))
        if verdict.decision is not None and (digest := verdict.decision.policy_digest) not in self._kept:
            if digest not in appraiser.files:
                raise RuntimeError("the appraiser does not know the files of its policy")
            self._kept.add(self._archive.keep_policy(appraiser.files[digest]))

    def _keep_manifests(self, appraiser: Appraiser, terms: Terms) -> None:
        """Keep the declared manifests: a policy sees their names, and refusals name their files."""
        for digest in terms.declared:
            manifest = appraiser.manifests.get(digest)
            # Of one that is not known, each session says so for itself: another one may know it.
            name = digest if manifest is not None else terms.session + digest
            if name in self._kept:
                continue
            if manifest is not None:
                self._archive.keep_manifest(manifest)
            else:
                self._archive.keep_unknown(terms.session, digest)
            self._kept.add(name)

    def _keep_baselines(self, appraiser: Appraiser) -> None:
        """Keep the signed files that the reference values name: whoever took them in force has done so, as a rule."""
        files = appraiser.baselines.files
        named = {strict.hex_decode(item.digest, what="baseline.digest") for item in appraiser.reference.baselines}
        if not named <= files.keys():
            raise RuntimeError("the appraiser does not know the files of its baselines")
        for digest in sorted(named - self._kept):
            self._kept.add(self._archive.keep_baseline(files[digest]))
