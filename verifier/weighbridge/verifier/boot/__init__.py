"""What booted and what ran on a host, from the logs that quoted registers vouch for.

=================  ====================================================================
``facts``          firmware's and systemd's logs, replayed; what they say of the boot
``events``         what firmware's events mean, and which of it their digests vouch for
``cmdline``        a kernel's command line, read as the kernel reads it
``runtime``        IMA's list, replayed step by step
``attester_code``  what of that shows which code measured and sampled, and what does not
=================  ====================================================================
"""

from __future__ import annotations

from weighbridge.verifier.boot.facts import BootFacts, boot_facts

__all__ = ["BootFacts", "boot_facts"]
