"""The physical record: what the samples of enrolled GPUs can contradict and corroborate, and what they cannot.

Data flow one way:

1. :mod:`.samples`: series of samples are joined over windows and cut into units, each with its declared work.
2. :mod:`.physics`: units and windows are checked against what every working GPU obeys, which needs no training.
3. :mod:`.detector`: units are scored against a baseline that its owner signed.
4. Here: one GPU's word (:mod:`.device`), what is carried from window to window (:mod:`.state`) and from session to
   session (:mod:`.history`), and all GPUs of a window (:mod:`.appraisal`).

:mod:`.study` stands beside: it makes baselines of recordings and says what they are worth. Sessions are judged without
it.
"""
