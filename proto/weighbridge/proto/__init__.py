"""What two parties must compute to the same bytes.

Evidence types, strict decoders, size limits, the binding hash, ledger encodings, the gRPC messages. No IO, no
clock, no private keys, no trust decisions. Where anything disagrees with ``docs/protocol.md``, that document
prevails.
"""
