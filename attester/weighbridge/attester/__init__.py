"""Runs on the GPU host: measures, samples, binds, signs, sends. Decides nothing.

Begin with :mod:`weighbridge.attester.sealing`: from what was observed to the evidence that is sent.
"""
