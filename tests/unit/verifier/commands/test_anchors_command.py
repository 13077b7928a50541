"""`weighbridge anchors`: who is believed is shown with its source, added deliberately, and watched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gpu_support import Certificate, chain_of
from support.authors import Author
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier import anchors
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.cli import main
from weighbridge.verifier.commands.outcome import load_anchors

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

RSA = rsa.generate_private_key(65537, 2048)
ROOT = Certificate("maker root", key=RSA, hash=hashes.SHA256(), not_after=datetime(2035, 1, 1, tzinfo=UTC))
MIDDLE = Certificate("maker intermediate")
LEAF = Certificate("leaf", ca=None, signs=False)
CHAIN = chain_of(LEAF, MIDDLE, ROOT)


@dataclass(frozen=True)
class Done:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def command(*arguments: str | Path) -> Done:
        status = main(["anchors", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return command


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def maker(tmp_path: Path) -> Path:
    """A maker's root certificate, with words above it as tools write them."""
    path = tmp_path / "root.pem"
    path.write_bytes(b"Certificate:\n  Data: ...\n" + pem(CHAIN[2]))
    return path


def arguments(*files: Path, purpose: str = "tpm-ek-root", platform: str = "tpm", output: Path) -> tuple[str, ...]:
    named = ("--purpose", purpose, "--platform", platform, "--source", "the maker's web page")
    return ("import", *map(str, files), *named, "-o", str(output))


# -- list and show ----------------------------------------------------------------------------------------------------


def test_list_is_what_is_shipped(run: Callable[..., Done]) -> None:
    done = run("list")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == len(anchors.default().anchors) + 1
    assert any(line.startswith("nvidia-device-root") and "NVIDIA Device Identity CA" in line for line in lines)
    assert "as of 20" in lines[-1]
    assert run("list", "--json").document["anchors"] == [each.document() for each in anchors.default().anchors]


def test_list_one_purpose(run: Callable[..., Done]) -> None:
    done = run("list", "--purpose", "amd-ark", "--json")
    assert [each["purpose"] for each in done.document["anchors"]] == ["amd-ark"] * 3
    none = run("list", "--purpose", "nras-root")
    assert "docs/attestation-service.md" in none.out.splitlines()[-1]
    assert "attestation-service" not in run("list", "--purpose", "client-ca").out
    unknown = run("list", "--purpose", "everything")
    assert unknown.status == ExitCode.USAGE
    assert "amd-ark" in unknown.err


@pytest.mark.parametrize(
    "wanted",
    [
        "stsafe rsa root",
        "C8:F1:79:94:33:56:E1:3D:9D:84:B1:00:20:1C:EF:AB:BF:40:88:80:24:1E:53:29:E6:0D:95:0C:E1:DE:A6:23",
    ],
)
def test_show_by_name_and_by_fingerprint_of_key_or_certificate(run: Callable[..., Done], wanted: str) -> None:
    done = run("show", wanted)
    assert (done.status, done.out.count("STSAFE RSA Root CA 02")) == (0, 1)
    assert "source      certificate SHA-256 c8f179943356e13d" in done.out
    (shown,) = run("show", wanted, "--json").document["anchors"]
    (again,) = run("show", shown["sha256"][:8], "--json").document["anchors"]
    assert shown == again


def test_show_nobody(run: Callable[..., Done]) -> None:
    """Nor by less of a fingerprint than tells two apart, nor by a key identifier, which is none."""
    for wanted in ("Acme", "c8f1799", "7cc28dbe"):
        done = run("show", wanted)
        assert (done.status, done.out) == (ExitCode.USAGE, "")
        assert "anchors list" in done.err


def test_whose_an_author_of_policies_is(run: Callable[..., Done], tmp_path: Path) -> None:
    """Two documents that say it differently are none: the one taken first must not decide for whom a key speaks."""
    narrow, wide = Author("Tenant A", "tenant-a"), Author("Tenant A")
    for name, author in (("narrow", narrow), ("wide", wide)):
        (tmp_path / name).write_bytes(anchors.TrustAnchors((author.anchor(),)).encode())
    done = run("show", "Tenant A", "--anchors", tmp_path / "narrow")
    assert "  tenant      tenant-a, and no other\n" in done.out
    assert "tenant " not in run("show", "Tenant A", "--anchors", tmp_path / "wide").out
    done = run("list", "--anchors", tmp_path / "narrow", "--anchors", tmp_path / "wide")
    assert (done.status, Code.ANCHORS_INVALID in done.err) == (ExitCode.MALFORMED, True)
    assert run("list", "--anchors", tmp_path / "narrow", "--anchors", tmp_path / "narrow").status == 0


# -- import -----------------------------------------------------------------------------------------------------------


def test_import_makes_a_document_and_adds_to_it(run: Callable[..., Done], maker: Path, tmp_path: Path) -> None:
    output = tmp_path / "vendors.json"
    done = run(*arguments(maker, output=output))
    assert (done.status, done.err) == (0, "")
    assert f"certificate SHA-256 {sha256(CHAIN[2].public_bytes(Encoding.DER)).hex()} (compare it" in done.out
    (anchor,) = anchors.load(output.read_bytes()).anchors
    assert anchor.source.endswith("; the maker's web page")
    assert (anchor.purpose, anchor.platform, anchor.name) == ("tpm-ek-root", "tpm", "CN=maker root")
    (tmp_path / "middle.der").write_bytes(CHAIN[1].public_bytes(Encoding.DER))
    more = run(*arguments(tmp_path / "middle.der", purpose="tpm-ek-intermediate", output=output), "--json")
    assert (more.document["anchors"], [each["name"] for each in more.document["added"]]) == (
        2,
        ["CN=maker intermediate"],
    )
    again = run(*arguments(maker, output=output))
    assert (again.status, len(anchors.load(output.read_bytes()).anchors)) == (0, 2)
    assert "known    CN=maker root" in again.out


def refused(done: Done, status: ExitCode, code: Code, output: Path) -> None:
    assert (done.status, done.out) == (status, "")
    assert code.value in done.err
    assert "hint: " in done.err
    assert not output.exists()


def test_import_refuses_what_is_no_root(run: Callable[..., Done], tmp_path: Path) -> None:
    output, file = tmp_path / "out.json", tmp_path / "in.pem"
    file.write_bytes(pem(CHAIN[1]))
    done = run(*arguments(file, output=output))
    refused(done, ExitCode.NOT_AUTHENTIC, Code.CHAIN_BROKEN, output)
    assert "--purpose tpm-ek-intermediate" in done.err
    done = run(*arguments(file, purpose="amd-ark", output=output))
    refused(done, ExitCode.NOT_AUTHENTIC, Code.CHAIN_BROKEN, output)
    file.write_bytes(pem(Certificate("maker root").issue(ROOT)))
    refused(run(*arguments(file, output=output)), ExitCode.NOT_AUTHENTIC, Code.CHAIN_BROKEN, output)
    file.write_bytes(pem(CHAIN[0]))
    done = run(*arguments(file, purpose="client-ca", output=output))
    assert (done.status, output.exists()) == (ExitCode.NOT_AUTHENTIC, False)


def test_import_believes_who_signs_what_gpus_should_measure(run: Callable[..., Done], tmp_path: Path) -> None:
    vendor = EmulatedVendor.create()
    output, file = tmp_path / "out.json", tmp_path / "in.der"
    file.write_bytes(vendor.rim_signer.chain[1])
    done = run(*arguments(file, purpose="nvidia-rim-root", platform="nvidia", output=output))
    refused(done, ExitCode.NOT_AUTHENTIC, Code.CHAIN_BROKEN, output)
    assert "believe its root alone" in done.err
    file.write_bytes(vendor.rim_root_certificate)
    done = run(*arguments(file, purpose="nvidia-rim-root", platform="tpm", output=output))
    assert (done.status, "shipped policies know such keys as nvidia" in done.out) == (0, True)
    (anchor,) = load_anchors([str(output)]).anchors
    assert anchor.purpose == "nvidia-rim-root"


def test_import_refuses_weak_keys_and_no_certificates(run: Callable[..., Done], tmp_path: Path) -> None:
    output, file = tmp_path / "out.json", tmp_path / "in.pem"
    weak = Certificate("weak", key=rsa.generate_private_key(65537, 1024), hash=hashes.SHA256())  # noqa: S505 - to be refused
    file.write_bytes(pem(chain_of(weak)[0]))
    done = run(*arguments(file, output=output))
    assert (done.status, output.exists()) == (ExitCode.MALFORMED, False)
    assert Code.ANCHORS_INVALID.value in done.err
    file.write_bytes(b"")
    done = run(*arguments(file, output=output))
    refused(done, ExitCode.MALFORMED, Code.CERT_MALFORMED, output)
    assert "neither a certificate nor a public key" in done.err
    refused(run(*arguments(tmp_path / "nowhere", output=output)), ExitCode.ENVIRONMENT, Code.FILE_UNREADABLE, output)


def test_import_refuses_one_key_on_two_platforms(run: Callable[..., Done], maker: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    assert run(*arguments(maker, output=output)).status == 0
    before = output.read_bytes()
    done = run(*arguments(maker, platform="insecure-emulated", output=output))
    assert (done.status, output.read_bytes()) == (ExitCode.MALFORMED, before)
    assert Code.ANCHORS_INVALID.value in done.err


def test_import_says_what_an_emulated_platform_is(run: Callable[..., Done], maker: Path, tmp_path: Path) -> None:
    done = run(*arguments(maker, platform="insecure-emulated", output=tmp_path / "out.json"))
    assert done.status == 0
    assert "anybody can make an emulated device" in done.out


@pytest.mark.parametrize("platform", ["intel-tdx", "tmp"])
def test_import_says_what_no_shipped_policy_knows(
    run: Callable[..., Done], maker: Path, tmp_path: Path, platform: str
) -> None:
    done = run(*arguments(maker, platform=platform, output=tmp_path / "out.json"))
    assert done.status == 0
    assert f"shipped policies know such keys as tpm or google-vtpm, not as {platform}" in done.out
    done = run(*arguments(maker, platform="tpm", output=tmp_path / "good.json"))
    assert "warning" not in done.out


def test_import_does_not_write_over_what_is_no_document(run: Callable[..., Done], maker: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    output.write_bytes(b"{}")
    assert run(*arguments(maker, output=output)).status == ExitCode.MALFORMED
    assert output.read_bytes() == b"{}"


@pytest.mark.parametrize("bad", [("--platform", "TPM"), ("--platform", ""), ("--source", " "), ("--purpose", "ledger")])
def test_import_usage(run: Callable[..., Done], maker: Path, tmp_path: Path, bad: tuple[str, str]) -> None:
    assert run(*arguments(maker, output=tmp_path / "x"), *bad).status == ExitCode.USAGE


def test_a_pinned_key_needs_a_name(run: Callable[..., Done], tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    file, output = tmp_path / "ak.pem", tmp_path / "pins.json"
    file.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    good = arguments(file, purpose="attestation-key", output=output)
    refused(run(*good), ExitCode.MALFORMED, Code.CERT_MALFORMED, output)
    done = run(*arguments(file, output=output), "--name", "host-17")
    refused(done, ExitCode.MALFORMED, Code.CERT_MALFORMED, output)
    done = run(*good, "--name", "host-17")
    (anchor,) = anchors.load(output.read_bytes()).select("attestation-key")
    assert (done.status, anchor.name) == (0, "host-17")
    assert anchor.spki == key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    file.write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    assert run(*good, "--name", "x").status == ExitCode.MALFORMED


# -- check, and documents together ------------------------------------------------------------------------------------


def test_what_is_shipped_is_valid_as_of_its_date_and_says_what_is_weak(run: Callable[..., Done]) -> None:
    done = run("check", "--at", "2026-11-26T00:00:00Z")
    assert (done.status, done.err) == (0, "")
    assert "RSA keys of less than 3072 bits" in done.out
    kinds = {finding["kind"] for finding in run("check", "--at", "2026-11-26T00:00:00Z", "--json").document["findings"]}
    assert kinds == {"weak"}


@pytest.mark.parametrize(
    ("at", "kind", "status"),
    [
        ("2019-12-31T23:59:59Z", "not yet valid", ExitCode.NOT_AUTHENTIC),
        ("2034-10-01T00:00:00Z", None, ExitCode.AFFIRMED),
        ("2034-10-04T00:00:00Z", "expires soon", ExitCode.AFFIRMED),
        ("2035-01-01T00:00:00Z", "expires soon", ExitCode.AFFIRMED),
        ("2035-01-01T00:00:01Z", "expired", ExitCode.NOT_AUTHENTIC),
    ],
)
def test_check_tells_what_runs_out(  # the maker's root is valid from 2020 to 2035
    run: Callable[..., Done], maker: Path, tmp_path: Path, at: str, kind: str | None, status: ExitCode
) -> None:
    output = tmp_path / "out.json"
    run(*arguments(maker, output=output))
    done = run("check", "--anchors", output, "--at", at)
    assert (done.status, done.out.splitlines()[-1].startswith("1 anchor, ")) == (status, True)
    document = run("check", "--anchors", output, "--at", at, "--json").document
    assert document["code"] == ("CHAIN_EXPIRED" if status else None)
    assert [each["kind"] for each in document["findings"]] == [*([] if kind is None else [kind]), "weak"]
    assert kind is None or done.out.startswith(kind)


def test_check_names_emulated_platforms(run: Callable[..., Done], maker: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    run(*arguments(maker, platform="insecure-emulated", output=output))
    assert "emulated" in run("check", "--anchors", output, "--at", "2026-01-01T00:00:00Z").out


def test_shipped_names_the_default_anchors_among_documents(
    run: Callable[..., Done], maker: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.json"
    run(*arguments(maker, output=output))
    default = anchors.default().anchors
    assert load_anchors([]).anchors == load_anchors(["shipped"]).anchors == default
    both = load_anchors(["shipped", str(output)]).anchors
    assert both == (*default, *anchors.load(output.read_bytes()).anchors)
    assert load_anchors([str(output)]).anchors == anchors.load(output.read_bytes()).anchors


def test_one_key_in_two_documents_is_believed_as_the_first_says(
    run: Callable[..., Done], maker: Path, tmp_path: Path
) -> None:
    first, second, third = (tmp_path / name for name in ("first.json", "second.json", "third.json"))
    for output in (first, second):
        run(*arguments(maker, output=output))
    (tmp_path / "other.pem").write_bytes(pem(chain_of(Certificate("other"))[0]))
    run(*arguments(tmp_path / "other.pem", output=second))
    second.write_bytes(second.read_bytes().replace(b"the maker's web page", b"somebody"))
    merged = load_anchors([str(first), str(second)]).anchors
    assert sorted(each.source.rpartition("; ")[2] for each in merged) == ["somebody", "the maker's web page"]
    run(*arguments(maker, platform="insecure-emulated", output=third))
    done = run("list", "--anchors", first, "--anchors", third)
    assert (done.status, Code.ANCHORS_INVALID.value in done.err) == (ExitCode.MALFORMED, True)


def test_each_pin_of_an_attestation_key_counts_whichever_document_it_stands_in(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ends = [datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 2030, 2030)]
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for file, end in zip(files, ends, strict=True):
        pin = Anchor("attestation-key", "host-17", "tpm", spki, datetime(2025, 1, 1, tzinfo=UTC), end, "a test")
        file.write_bytes(TrustAnchors((pin,)).encode())
    assert [pin.not_after for pin in load_anchors(list(map(str, files))).anchors] == ends[:2]


def test_a_renewed_pin_of_an_attestation_key_is_added_and_no_other_one_twice(
    run: Callable[..., Done], tmp_path: Path
) -> None:
    key, output = ec.generate_private_key(ec.SECP256R1()), tmp_path / "pins.json"
    ends = [datetime(year, 1, 1, tzinfo=UTC) for year in (2030, 2035, 2032)]
    for number, end in enumerate(ends):
        file = tmp_path / f"{number}.pem"
        file.write_bytes(pem(chain_of(Certificate("host-17", key=key, not_after=end))[0]))
        run(*arguments(file, purpose="attestation-key", output=output))
    pins = anchors.load(output.read_bytes()).anchors
    assert ([pin.not_after for pin in pins], {pin.purpose for pin in pins}) == (ends[:2], {"attestation-key"})
