"""NVIDIA's own Python verifiers, answering one question a line. Runs inside their environment, never in ours.

Usage: ``.peers/nvidia/bin/python -I tests/support/nvidia_peer.py`` with a JSON object on each line of standard input,
and one on standard output for each. Their code is used as it is installed; replaced is what needs the network or a GPU:

- the fetching of RIMs: they come with the question, by the id that their code asks for;
- OCSP: every chain is good, unless the question says ``"ocsp": "network"``: then they try, or read ``responses``;
- whether the host runs in development mode, which they ask NVML after each failure: no.

A question: ``devices`` (report in hexadecimal, chain as PEM, architecture 9 or 10), ``nonce``, ``rims`` by id. It may
have ``device_root`` and ``rim_root`` (PEM files believed instead of NVIDIA's), ``clock`` (seconds by which the clock of
this process is wrong, where ``wrong_clock.c`` is loaded), and ``keep``: it is then answered by this process, with what
their code left behind from earlier ones, instead of a fork of it. ``"sdk": true`` asks `nv_attestation_sdk` instead,
about the GPUs that NVML shows it.

An answer: ``result`` (true, false, or null where their call raised), ``error`` (the name of the error that ended it),
``asked`` (the RIM ids they asked for), ``claims`` (of each device), ``seconds`` (of their call alone).
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Final, TextIO

# Their code prints, and writes a log beside: what this program answers goes out by a descriptor of its own.
_OPTIONS: Final = {
    "verbose": False,
    "test_no_gpu": False,
    "driver_rim": None,
    "vbios_rim": None,
    "user_mode": True,
    "allow_hold_cert": False,
    "service_key": None,
    "rim_root_cert": None,
    "rim_service_url": None,
    "ocsp_url": None,
    "ocsp_nonce_disabled": False,
    "claims_version": "3.0",
}


class _Errors(logging.Handler):
    """The exceptions that their code logs instead of raising."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, BaseException):
            self.seen.append(record.msg)


class _Device:
    """What their code asks an NVML handle for. The driver's and VBIOS's versions are those that the report names."""

    def __init__(self, modules: _Modules, number: int, device: dict[str, Any]) -> None:
        self.number = number
        self.architecture: int = device["architecture"]
        self.report = bytes.fromhex(device["report"])
        handle = modules.of("verifier.nvml.test_handle").TestHandle(device["chain"].encode())
        self.chain: list[Any] = (
            modules.of("verifier.nvml.gpu_cert_chains").GpuCertificateChains(handle).GpuAttestationCertificateChain
        )
        self.driver, self.vbios = "unknown", "unknown"
        try:
            settings = modules.of("verifier.config").GPU_ARCHITECTURE_MAP[self.architecture]
            parsed = modules.of("verifier.attestation").AttestationReport(self.report, settings)
            opaque = parsed.get_response_message().get_opaque_data()
            self.driver = opaque.get_data("OPAQUE_FIELD_ID_DRIVER_VERSION").decode().rstrip("\0")
            format_version = modules.of("verifier.utils").format_vbios_version
            self.vbios = format_version(opaque.get_data("OPAQUE_FIELD_ID_VBIOS_VERSION"))
        except Exception:  # noqa: BLE001, S110 - whatever their parser raises is for their verifier to raise again
            pass

    def get_gpu_architecture(self) -> int:
        return self.architecture

    def get_uuid(self) -> str:
        return f"GPU-{self.number}"

    def get_driver_version(self) -> str:
        return self.driver

    def get_vbios_version(self) -> str:
        return self.vbios

    def get_attestation_report(self) -> bytes:
        return self.report

    def get_attestation_cert_chain(self) -> list[Any]:
        return self.chain


class _Modules:
    """Their modules, imported here and nowhere else: ours are checked without theirs being installed."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore")
        self.cc_admin = self.of("verifier.cc_admin")
        self.utils = self.of("verifier.cc_admin_utils").CcAdminUtils
        self.settings = self.of("verifier.config")
        self.cc_admin.NvmlHandler.is_cc_dev_mode = staticmethod(lambda: False)
        self.network = self.utils.ocsp_certificate_chain_validation
        for name in ("gpu-verifier-info", "gpu-verifier-event"):
            logger = logging.getLogger(name)
            logger.handlers[:] = [logging.NullHandler()]
            logger.propagate = False
            logger.setLevel(logging.ERROR)

    @staticmethod
    def of(name: str) -> Any:  # noqa: ANN401 - somebody else's module
        return importlib.import_module(name)


def main() -> int:
    """Answer until there is nothing more to read."""
    answers = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    modules = _Modules()
    for line in sys.stdin:
        question = json.loads(line)
        if question.get("keep"):
            _answer(modules, question, answers)
            continue
        child = os.fork()
        if child == 0:
            _answer(modules, question, answers)
            os._exit(0)
        os.waitpid(child, 0)
    return 0


def _answer(modules: _Modules, question: dict[str, Any], answers: TextIO) -> None:
    clock = os.environ.get("WRONG_CLOCK")
    if clock is not None:
        Path(clock).write_text(str(question.get("clock", 0)))
    if root := question.get("device_root"):
        modules.settings.BaseSettings.DEVICE_ROOT_CERT = root
    if root := question.get("rim_root"):
        modules.settings.BaseSettings.RIM_ROOT_CERT = root
    asked: list[str] = []

    def rim(name: str) -> str:
        asked.append(name)
        rims: dict[str, str] = question["rims"]
        if name not in rims:
            raise modules.of("verifier.exceptions").RIMFetchError(name)
        return rims[name]

    modules.utils.fetch_rim_file = staticmethod(rim)
    good = question.get("ocsp", "good") == "good"
    modules.utils.ocsp_certificate_chain_validation = staticmethod(_good if good else modules.network)
    errors = _Errors()
    logger = logging.getLogger("gpu-verifier-info")
    logger.addHandler(errors)
    result: bool | None = None
    claims: list[Any] = []
    seconds = 0.0
    try:
        if "sdk" in question:
            result = _attest_by_sdk(modules, question)
        else:
            devices = [_Device(modules, number, device) for number, device in enumerate(question["devices"])]
            started = time.perf_counter()
            result, claims = modules.cc_admin.attest(dict(_OPTIONS), question["nonce"], devices)
            seconds = time.perf_counter() - started
    except Exception as error:  # noqa: BLE001 - whatever they raise is the answer
        errors.seen.append(error)
    logger.removeHandler(errors)
    answer = {
        "result": result,
        "error": type(errors.seen[-1]).__name__ if errors.seen else None,
        "text": str(errors.seen[-1]).strip() if errors.seen else None,
        "asked": asked,
        "claims": _read(modules, claims),
        "seconds": seconds,
    }
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _attest_by_sdk(modules: _Modules, question: dict[str, Any]) -> bool:
    """What `nv_attestation_sdk` makes of the GPUs that NVML shows it: `get_evidence`, then `attest`."""
    sdk = modules.of("nv_attestation_sdk.attestation")
    client = sdk.Attestation()
    client.set_name("weighbridge")
    client.set_nonce(question["nonce"])
    client.add_verifier(sdk.Devices.GPU, sdk.Environment.LOCAL, "", "")
    evidence = client.get_evidence(options={"ppcie_mode": False})
    return bool(client.attest(evidence))


def _good(chain: list[Any], _settings: object, _mode: object) -> tuple[bool, str, str, None]:
    """Every certificate is good; as the real one does, it leaves the chain converted."""
    chain[:] = [certificate.to_cryptography() for certificate in chain]
    return True, "", "good", None


def _read(modules: _Modules, claims: list[Any]) -> dict[str, Any]:
    """The claims of each device, out of tokens that are signed with the word ``secret``."""
    if len(claims) < 2:
        return {}
    decode = modules.of("jwt").decode
    return {name: decode(token, "secret", algorithms=["HS256"]) for name, token in claims[1].items()}


if __name__ == "__main__":
    sys.exit(main())
