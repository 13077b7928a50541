"""From the telemetry of windows to units: series joined over windows, and the declared work of each stretch.

Judges nothing: a gap or a defect is written down (:class:`.series.Defect`), and what it means is decided elsewhere.
"""
