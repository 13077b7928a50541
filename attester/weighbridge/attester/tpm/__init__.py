"""The TPM on the attester's side: an interface, the device through tpm2-pytss, and an emulator to run without one.

==============  =====================================================================================
``interface``   :class:`TpmDevice`, what the attester needs of a TPM
``device``      :class:`Tpm`, a real TPM or a running emulator; the one module that imports tpm2-pytss
``transport``   TCTI strings, and a connection to an emulator that never waits without a limit
``faults``      response codes as :class:`EnvironmentFault` with hints
``nv``          certificates as TPMs store them
``emulator``    :class:`Swtpm`, platform ``insecure-emulated``
==============  =====================================================================================
"""
