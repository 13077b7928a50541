"""The policy room: what a policy sees, the engines that evaluate it, and the policies that come with Weighbridge.

In the order of use: ``document`` (the input), ``reference`` (reference values), ``policy_set`` (modules and their
digests), ``checker`` (what is refused before loading), ``regorus`` (the engine, in a process of its own), ``engine``
(decisions). A policy sees verified facts only, and whatever it does, only ``allow`` together with an empty ``deny``
admits.
"""
