"""How far a GPU's units are from a baseline, and what that is worth as a bound on false alarms.

A unit becomes features (:mod:`.features`), less what its declared work explains (:mod:`.explained`); their distance
from the baseline (:mod:`.metric`) a score (:mod:`.scoring`); scores evidence (:mod:`.evidence`) against the bounds of
the calibration (:mod:`.calibration`), beside early looks at power that is off by far (:mod:`.gross`). A unit that lacks
what the baseline's runs had is not scored (:mod:`.reported`).

What it shows is that a GPU draws power as it did, or not: never which weights it holds.
"""
