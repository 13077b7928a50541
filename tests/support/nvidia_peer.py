"""NVIDIA's own Python verifiers, answering one question a line. Runs inside their environment, never in ours.

Usage: ``.peers/nvidia/bin/python -I tests/support/nvidia_peer.py`` with a JSON object on each line of standard input,
and one on standard output for each. Their code is used as it is installed; replaced is what needs the network or a GPU:

- the fetching of RIMs: they come with the question, by the id that their code asks for;
- OCSP: every certificate is good, unless the question brings ``responses`` for those of a device (DER in hexadecimal,
  by serial number), which their code then gets for its requests;
- whether the host runs in development mode, which they ask NVML after each failure: no.

A question: ``devices`` (report in hexadecimal, chain as PEM, architecture 9 or 10), ``nonce``, ``rims`` by id. It may
have ``device_root`` and ``rim_root`` (PEM files believed instead of NVIDIA's), ``options`` of theirs, ``clock`` (by how
many seconds this process's is wrong, where ``wrong_clock.c`` is loaded), and ``keep``: it is then answered by this
process, with what their code left behind from earlier ones, instead of a fork of it. ``"by": "switches"`` asks the
verifier of switches in `nv_attestation_sdk`, ``"by": "sdk"`` that package itself, about the GPUs that NVML shows, and
``"by": "rim"`` about the one manifest alone.

An answer: ``result`` (true, false, or null where their call raised), ``error`` (the name of the error that ended it),
``asked`` (the RIM ids they asked for), ``claims`` (of each device), ``seconds`` and ``cpu`` (of their call alone).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import struct
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

_Call = Callable[[], tuple[bool, list[Any]]]
_SWITCH: Final = "nv_attestation_sdk.verifiers.nv_switch_verifier"
_LS10: Final = 2

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


@dataclass
class _Gpu:
    """What their code asks an NVML handle for."""

    number: int
    architecture: int
    driver: str
    vbios: str
    report: bytes
    chain: list[Any]

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


class _Switches:
    """What their code asks a switch's library for."""

    def get_switch_architecture(self) -> tuple[int, int]:
        return _LS10, 0


def _module(name: str) -> Any:  # noqa: ANN401 - somebody else's
    """Imported here and nowhere else: this file is checked where theirs are not installed."""
    return importlib.import_module(name)


def main() -> int:
    """Answer until there is nothing more to read."""
    # Their code prints to standard output: what this program answers goes out by a descriptor of its own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    _module("verifier.cc_admin")
    _silence("gpu-verifier-info", "gpu-verifier-event")
    for line in sys.stdin:
        question = json.loads(line)
        if question.get("keep"):
            _answer(question, answers)
            continue
        child = os.fork()
        if child == 0:
            _answer(question, answers)
            os._exit(0)
        os.waitpid(child, 0)
    return 0


def _answer(question: dict[str, Any], answers: TextIO) -> None:
    if clock := os.environ.get("WRONG_CLOCK"):
        with Path(clock).open("r+b") as file:
            file.write(struct.pack("=q", question.get("clock", 0) * 10**9))
    by = {"gpus": _gpus, "switches": _switches, "sdk": _sdk, "rim": _rim}[question.get("by", "gpus")]
    errors, asked = _Errors(), list[str]()
    loggers = [logging.getLogger(name) for name in ("gpu-verifier-info", "sdk-logger")]
    result: bool | None = None
    claims: list[Any] = []
    seconds = cpu = 0.0
    try:
        call = by(question, asked)
        for logger in loggers:
            logger.addHandler(errors)
        started, before = time.perf_counter(), time.process_time()
        result, claims = call()
        seconds, cpu = time.perf_counter() - started, time.process_time() - before
    except Exception as raised:  # noqa: BLE001 - whatever they raise is the answer
        errors.seen.append(raised)
    for logger in loggers:
        logger.removeHandler(errors)
    answer = {
        "result": result,
        "error": next((type(error).__name__ for error in reversed(errors.seen)), None),
        "text": next((str(error).strip() for error in reversed(errors.seen)), None),
        "asked": asked,
        "claims": _read(claims),
        "seconds": seconds,
        "cpu": cpu,
    }
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


# -- whom they ask, and what they are asked ----------------------------------------------------------------------------


def _gpus(question: dict[str, Any], asked: list[str]) -> _Call:
    """`cc_admin.attest` of `nv-local-gpu-verifier`."""
    cc_admin = _module("verifier.cc_admin")
    cc_admin.NvmlHandler.is_cc_dev_mode = staticmethod(lambda: False)
    _prepare(question, asked, _module("verifier.config"), _module("verifier.cc_admin_utils").CcAdminUtils)
    devices = [_gpu(number, device) for number, device in enumerate(question["devices"])]
    return partial(cc_admin.attest, {**_OPTIONS, **question.get("options", {})}, question["nonce"], devices)


def _gpu(number: int, device: dict[str, Any]) -> _Gpu:
    """The driver's and VBIOS's versions are those that the report names: NVML would say no others."""
    report = bytes.fromhex(device["report"])
    handle = _module("verifier.nvml.test_handle").TestHandle(device["chain"].encode())
    chain = _module("verifier.nvml.gpu_cert_chains").GpuCertificateChains(handle).GpuAttestationCertificateChain
    driver = vbios = "unknown"
    # What their parser does not read, their verifier says.
    with contextlib.suppress(Exception):
        settings = _module("verifier.config").GPU_ARCHITECTURE_MAP[device["architecture"]]
        parsed = _module("verifier.attestation").AttestationReport(report, settings)
        opaque = parsed.get_response_message().get_opaque_data()
        driver = opaque.get_data("OPAQUE_FIELD_ID_DRIVER_VERSION").decode().rstrip("\0")
        vbios = _module("verifier.utils").format_vbios_version(opaque.get_data("OPAQUE_FIELD_ID_VBIOS_VERSION"))
    return _Gpu(number, device["architecture"], driver, vbios, report, chain)


def _switches(question: dict[str, Any], asked: list[str]) -> _Call:
    """`nvswitch_admin.attest` of `nv-attestation-sdk`."""
    admin = _module(f"{_SWITCH}.nvswitch_admin")
    _silence("sdk-logger")
    admin.NSCQHandler = _Switches
    utils = _module(f"{_SWITCH}.nvswitch_admin_utils").NVSwitchAdminUtils
    _prepare(question, asked, _module(f"{_SWITCH}.config"), utils)
    devices = [
        admin.NVSwitch(f"SWITCH-{number}", [device["chain"].encode()], bytes.fromhex(device["report"]))
        for number, device in enumerate(question["devices"])
    ]
    return partial(admin.attest, {**_OPTIONS, **question.get("options", {})}, question["nonce"], devices)


def _sdk(question: dict[str, Any], asked: list[str]) -> _Call:
    """`nv_attestation_sdk`: `get_evidence` of the GPUs that NVML shows it, then `attest`."""
    sdk = _module("nv_attestation_sdk.attestation")
    _silence("sdk-logger", "nv-attestation-sdk")
    _prepare(question, asked, _module("verifier.config"), _module("verifier.cc_admin_utils").CcAdminUtils)
    client = sdk.Attestation()
    client.set_name("weighbridge")
    client.set_nonce(question["nonce"])
    client.add_verifier(sdk.Devices.GPU, sdk.Environment.LOCAL, "", "")

    def call() -> tuple[bool, list[Any]]:
        evidence = client.get_evidence(options={"ppcie_mode": False})
        result = client.attest(evidence)
        return result, client.get_verifiers()[0][sdk.VerifierFields.JWT_TOKEN]

    return call


def _rim(question: dict[str, Any], asked: list[str]) -> _Call:
    """`RIM.verify` of `nv-local-gpu-verifier`, for the version that the manifest itself names."""
    config = _module("verifier.config")
    _prepare(question, asked, config, _module("verifier.cc_admin_utils").CcAdminUtils)
    settings = config.GPU_ARCHITECTURE_MAP[9]
    (content,) = question["rims"].values()

    def call() -> tuple[bool, list[Any]]:
        rim = _module("verifier.rim").RIM(rim_name="vbios", settings=settings, content=content)
        result, _ = rim.verify(version=rim.colloquialVersion.lower(), settings=settings)
        return result, []

    return call


# -- what stands in for network and GPU --------------------------------------------------------------------------------


def _prepare(
    question: dict[str, Any],
    asked: list[str],
    config: Any,  # noqa: ANN401 - somebody else's module
    utils: Any,  # noqa: ANN401 - somebody else's class
) -> None:
    if root := question.get("device_root"):
        config.BaseSettings.DEVICE_ROOT_CERT = root
    if root := question.get("rim_root"):
        config.BaseSettings.RIM_ROOT_CERT = root
    rims: dict[str, str] = question.get("rims", {})

    def fetch(name: str) -> str:
        asked.append(name)
        if name not in rims:
            raise LookupError(name)
        return rims[name]

    utils.fetch_rim_file = staticmethod(fetch)
    responses: dict[str, str] = question.get("responses", {})
    check = utils.ocsp_certificate_chain_validation

    def validate(chain: list[Any], settings: object, mode: Any) -> Any:  # noqa: ANN401 - an enumeration, a tuple of theirs
        if responses and mode.name == "GPU_ATTESTATION":
            return check(chain, settings, mode)
        return _good(chain)

    def send(request: bytes) -> Any:  # noqa: ANN401 - a response, as their library reads it
        ocsp = _module("cryptography.x509.ocsp")
        serial = ocsp.load_der_ocsp_request(request).serial_number
        return ocsp.load_der_ocsp_response(bytes.fromhex(responses[str(serial)]))

    utils.ocsp_certificate_chain_validation = staticmethod(validate)
    utils.send_ocsp_request = staticmethod(send)


def _good(chain: list[Any]) -> tuple[bool, str, str, None]:
    """Every certificate is good; as the real one does, it leaves the chain converted."""
    chain[:] = [certificate.to_cryptography() for certificate in chain]
    return True, "", "good", None


def _read(claims: list[Any]) -> dict[str, Any]:
    """The claims of each device, out of tokens that are signed with the word ``secret``."""
    if len(claims) < 2:
        return {}
    decode = _module("jwt").decode
    return {name: decode(token, "secret", algorithms=["HS256"]) for name, token in claims[1].items()}


def _silence(*names: str) -> None:
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False
        logger.setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
