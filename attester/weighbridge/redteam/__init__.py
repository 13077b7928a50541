"""Plays attacks against a running verifier of one's own, and says what refused each, and what did not.

Above both roles: its hosts are attesters without precautions, and it asks and believes as a relying party does. Nothing
imports it but the command line, when it is called. Begin with :mod:`weighbridge.redteam.attack`.
"""
