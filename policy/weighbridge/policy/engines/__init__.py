"""Engines that evaluate Rego, each in a process of its own: untrusted text on the far side of a pipe.

``process`` and ``worker`` are the two ends of the pipe, ``output`` reads what comes back. ``regorus`` is the engine
that decides; ``workbench`` evaluates any query, for the tools of policy authors, and decides nothing.
"""
