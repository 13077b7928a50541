"""Reference values: the relying party's own (``reference``), and what owners' sets say of models and hosts."""
