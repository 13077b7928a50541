"""The TPM on the attester's side: an interface, the device through tpm2-pytss, and an emulator to run without one.

==============  =====================================================================================
``interface``   :class:`TpmDevice`, what the attester needs of a TPM
``options``     :class:`TpmOptions`, what an operator says of it
``device``      :class:`Tpm`, a real TPM or a running emulator
``keys``        where attestation and endorsement keys come from
``pcrs``        PCR values, and quotes over them while they move
``esapi``       the commands that we give; imports tpm2-pytss, as do the next two
``connection``  commands tried again, over a connection that is made again
``tcti``        the TSS's end of that connection
``transport``   TCTI strings, and connections that never wait without a limit
``faults``      response codes as :class:`EnvironmentFault` with hints
``nv``          certificates as TPMs store them
``emulator``    :class:`Swtpm`, platform ``insecure-emulated``
==============  =====================================================================================
"""
