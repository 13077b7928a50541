"""Engines that evaluate Rego, each in processes of its own: untrusted text on the far side of a pipe.

``process`` and ``worker`` are the two ends of the pipe, ``pool`` keeps loaded workers ready, ``output`` reads what
comes back, and ``prepared`` makes a decision of it. ``regorus`` is the engine that decides; ``opa_go`` (with
``opa_worker``) and ``opa_binary`` are OPA, ``cross_check`` is two engines that must agree. ``loading`` is what each
does before: our checker stands before every engine. ``conformance`` asks an engine what policies rely on. ``workbench``
evaluates any query, for the tools of policy authors, and decides nothing.
"""
