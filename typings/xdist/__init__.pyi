"""pytest-xdist 3.8: what dealing tests out needs of it."""
