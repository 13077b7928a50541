"""The subcommands of ``weighbridge-attester``: one module each, with ``configure`` and ``run``."""
