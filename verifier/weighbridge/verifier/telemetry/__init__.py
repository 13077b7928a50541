"""The physical record: what the samples of enrolled GPUs can contradict and corroborate, and what they cannot.

Series of samples are joined over windows and cut into units (:mod:`.units`), checked against physics that needs no
training (:mod:`.physics`), scored against a baseline that its owner signed (:mod:`.scoring`), and put together over a
session (:mod:`.appraisal`).
"""
