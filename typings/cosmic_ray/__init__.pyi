"""Hand-written stub of `cosmic_ray` 8.7.0: what `scripts/mutants_listing.py` uses, in an environment of its own."""
