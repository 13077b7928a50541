"""Gates: what stands before a model at the relying party, and lets requests through only while its session is open.

A gate is told by a verifier how sessions stand, verifies each token itself, and closes by itself when one expires,
whatever has died by then. :mod:`.holder` decides, of events and times alone; :mod:`.watcher` listens; :mod:`.checking`
puts a decision into headers and a body. :mod:`.ext_authz` answers Envoy, :mod:`.http_auth` whatever asks over HTTP,
:mod:`.asgi` stands in a Python server, :mod:`.hook` runs commands.

Nothing of the verifier is used here but the verification of its tokens.
"""

from __future__ import annotations

__all__: list[str] = []
