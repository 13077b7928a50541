"""Policies that were written for other verifiers, asked beside one of ours: they can refuse, and never admit.

``module`` is such a policy as it is kept and named; ``claims`` lays verified facts out under other verifiers' names;
``profiles`` says for each of them what is asked and how the answer is read; ``beside`` asks.
"""
