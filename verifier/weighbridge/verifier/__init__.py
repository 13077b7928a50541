"""Takes untrusted bytes; parses, verifies, appraises, decides, records, answers.

Begin with :mod:`weighbridge.verifier.procedure`: the verification of one window, written once as a numbered list.
"""
