"""What ``weighbridge serve`` is told: by one file, by the environment, by its command line; the later ones win.

:mod:`.model` has every key, its type, default and meaning, and is what tables and checks are made of. :mod:`.layers`
puts the three places together and says where each value comes from; :mod:`.positions` finds a key's line in the file;
:mod:`.checking` looks at what the values name, before anything is started.
"""

__all__: list[str] = []
