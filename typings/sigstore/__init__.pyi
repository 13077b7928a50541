"""Hand-written stub of `sigstore` 4.5: what verifies a bundle without the network. The library is an optional extra."""
