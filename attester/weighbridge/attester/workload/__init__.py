"""How an inference server and the attester beside it talk: what is loaded, and what was served.

:mod:`~weighbridge.attester.workload.client` is for the inference server and needs nothing but the standard library;
:mod:`~weighbridge.attester.workload.server` and :mod:`~weighbridge.attester.workload.window` are the attester's side.
Nothing is imported here, so that a server that takes the client does not take the rest.
"""
