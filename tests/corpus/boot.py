"""What booted and what ran: logs that do not fit the quote, and hosts that are not what their owner accepts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from eventlog_support import ACTION, IPL, SHA256
from fakes.boot_logs import APPLICATION, STRICT_LINE, Boot, image, sha256_name
from fakes.forged_snp import ForgedSnp
from fakes.soft_tpm import SoftTpm
from support.forge import Forgery, seal
from support.world import NOON, requirements
from weighbridge.policy.values.host_sets import HostSet
from weighbridge.proto import cbor
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.measurement_events import ModelLoad, event_to_cbor
from weighbridge.proto.tpm.constants import HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.core import Answer, Opened

_BANKS = (HashAlgorithm.SHA256, HashAlgorithm.SHA384)
_FILES = {
    "/usr/bin/python3": b"interpreter",
    "/usr/bin/weighbridge-attester": b"attester",
    "/usr/lib/weighbridge/sealing.py": b"code",
    "/models/tiny/model.safetensors": b"weights",
}
_BOOT_PCRS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14]


def _booted(line: str = STRICT_LINE, files: Mapping[str, bytes] = _FILES) -> Boot:
    """A unified image under secure boot, systemd, and what the attester consists of."""
    boot = Boot(_BANKS)
    boot.uki(line)
    boot.kernel(files)
    return boot


def _accepting(boot: Boot, **changes: object) -> HostSet:
    """What an owner would sign of a host that booted so."""
    names = frozenset(sha256_name(content) for content in _FILES.values())
    values: dict[str, object] = {
        "owner": "host owner",
        "name": "rack",
        "number": 1,
        "digest": "5e" * 32,
        "not_before": NOON - timedelta(days=1),
        "not_after": NOON + timedelta(days=30),
        "pcrs": {pcr: (boot.values[SHA256, pcr],) for pcr in _BOOT_PCRS},
        "firmware": None,
        "files": names,
        "attester": names,
    }
    return HostSet(**(values | changes))  # type: ignore[arg-type]  # a test names fields that exist


def _world(
    arena: Arena, boot: Boot, *hosts: HostSet, policy: str = "insecure_development", snp: ForgedSnp | None = None
) -> World:
    """``snp`` is the processor of a confidential machine whose first code names the AK; none has a TPM of its own."""

    def with_hosts(made: Reference) -> Reference:
        return made.with_hosts(hosts)

    genuine = {"policy": "production", "platforms": ("tpm", "nvidia"), "source": "nvml", "unchecked": True}
    options = genuine if policy == "production" else {}
    tpm = None if snp is None else SoftTpm(ak="RSA-2048")
    world = arena.world(
        boot=boot,
        wanted=requirements(
            evidence=["boot", "gpu", "runtime", "telemetry", "tpm", "workload"],
            pcrs=[*_BOOT_PCRS[:10], 10, *_BOOT_PCRS[10:], 15],
            boot_pcrs=_BOOT_PCRS,
        ),
        reference=with_hosts,
        tpm=tpm,
        extra_anchors=[] if snp is None else list(snp.anchors().anchors),
        **options,  # type: ignore[arg-type]  # the names of production's options
    )
    if snp is not None and tpm is not None and isinstance(tpm.ak_key, rsa.RSAPrivateKey):
        world.host.endorsement, world.host.collateral = snp.endorsement(tpm.ak_key.public_key()), snp.collateral()
    return world


def _strict(arena: Arena, boot: Boot, check: str, *hosts: HostSet, snp: ForgedSnp | None = None) -> World:
    """Production under ``hosts``, where no written reason leaves ``check`` out."""
    world = _world(arena, boot, *hosts, policy="production", snp=snp)
    unchecked = {key: text for key, text in world.reference.unchecked.items() if key != check}
    world.judge_by(arena.engines, replace(world.reference, unchecked=unchecked))
    return world


def _demanding(arena: Arena, boot: Boot, check: str) -> Answer:
    return _window(_strict(arena, boot, check, _accepting(boot)))


def _window(world: World) -> Answer:
    world.open_session()
    return world.window()


def _enrolled(arena: Arena, edit: Callable[[BootLogs], BootLogs], boot: Boot | None = None) -> Opened:
    """An enrolment whose logs were edited on their way."""
    booted = boot or _booted()
    world = _world(arena, booted)
    return arena.enrol(
        world,
        edit=lambda proof: replace(proof, boot=edit(BootLogs.parse(proof.boot or b"")).encode()),
    )


# -- what is believed --------------------------------------------------------------------------------------------------


def case_001_known_host(arena: Arena) -> Answer:
    boot = _booted()
    return _window(_world(arena, boot, _accepting(boot)))


def case_002_attester_code_proven_in_production(arena: Arena) -> Answer:
    """Nothing of the measuring code is left to a written reason."""
    boot = _booted()
    world = _world(arena, boot, _accepting(boot), policy="production")
    answer = _window(world)
    decision = answer.verdict.decision
    assert decision is not None
    assert not {"attester_code", "boot_reference", "secure_boot"} & {item.check for item in decision.unchecked}
    assert answer.verdict.attester_code is not None
    assert answer.verdict.attester_code.status == "proven"
    return answer


def case_003_nobody_knows_the_host(arena: Arena) -> Answer:
    return _window(_world(arena, _booted()))


def case_004_a_known_file_is_read_later(arena: Arena) -> Answer:
    boot = _booted(files=dict(list(_FILES.items())[:3]))
    world = _world(arena, boot, _accepting(boot))
    assert _window(world).verdict.opens
    world.host.runs(*list(_FILES.items())[3])
    return world.window()


# -- logs that do not fit the quote ------------------------------------------------------------------------------------


def case_005_no_logs(arena: Arena) -> Opened:
    return arena.enrol(_world(arena, _booted()), edit=lambda proof: replace(proof, boot=None))


def case_006_no_list(arena: Arena) -> Opened:
    return _enrolled(arena, lambda logs: replace(logs, runtime=None))


def case_007_firmware_log_of_another_boot(arena: Arena) -> Opened:
    other = _booted("root=/dev/sda1 rw")
    return _enrolled(arena, lambda logs: replace(logs, firmware=other.logs().firmware))


def case_008_command_line_claimed(arena: Arena) -> Answer:
    """The log shows a strict command line, and what was extended is another one: it counts for nothing."""
    boot = Boot(_BANKS)
    boot.firmware_begins()
    boot.stub_line(STRICT_LINE, hashed="root=/dev/sda1 rw init=/bin/sh")
    boot.firmware_ends()
    boot.kernel(_FILES)
    return _demanding(arena, boot, "attester_code")


def case_009_list_shortened(arena: Arena) -> Opened:
    boot = _booted()
    hidden = b"".join(boot.runtime[:-1])
    return _enrolled(arena, lambda logs: replace(logs, runtime=hidden), boot)


def case_010_entry_hidden_in_a_window(arena: Arena) -> Answer:
    boot = _booted()
    world = _world(arena, boot, _accepting(boot))
    assert _window(world).verdict.opens
    world.host.runs("/usr/bin/strace", b"debugger")
    return arena.submit(world, seal(world.host, Forgery(runtime=lambda _: b"")))


def case_011_list_left_out_of_a_window(arena: Arena) -> Answer:
    boot = _booted()
    world = _world(arena, boot, _accepting(boot))
    assert _window(world).verdict.opens
    return arena.submit(world, seal(world.host, Forgery(runtime=lambda _: None)))


def case_012_list_where_none_is_demanded(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(runtime=lambda _: b"")))


def case_013_systemd_unexplained(arena: Arena) -> Opened:
    """Systemd extended the measurement log's register before us, and its log is kept back."""
    return _enrolled(arena, lambda logs: replace(logs, userspace=None))


def _hiding(arena: Arena, tell: Callable[[Boot, bytes], None]) -> Opened:
    """An undeclared model was loaded; its record is told as something that the boot measured, in ``tell``'s way."""
    boot = _booted()
    tell(boot, cbor.encode(event_to_cbor(ModelLoad(b"s" * 32, "undeclared"))))
    return arena.enrol(_world(arena, boot))


def case_019_load_told_as_systemds(arena: Arena) -> Opened:
    return _hiding(arena, lambda boot, content: boot.systemd(15, "volume-key", "cryptsetup:root", content))


def case_020_load_told_as_firmwares(arena: Arena) -> Opened:
    """An action of firmware's is bound by its digest, and may be any bytes."""
    return _hiding(arena, lambda boot, content: boot.event(15, ACTION, content))


def case_022_everything_shown_by_a_machine_of_the_attackers_own(arena: Arena) -> Answer:
    """No TPM made these quotes: whatever registers and logs are shown, they are the word of who started the machine."""
    boot, snp = _booted(), ForgedSnp.create("Genoa", "amd-sev-snp")
    answer = _window(_strict(arena, boot, "attester_code", _accepting(boot), snp=snp))
    assert answer.verdict.attester_code is not None
    assert answer.verdict.attester_code.missing == ("tpm",)
    return answer


def case_023_of_several_host_sets_that_which_proves_most(arena: Arena) -> Answer:
    """A class described loosely, and one whose attester has another version, take nothing from a good host."""
    boot = _booted()
    good = _accepting(boot)
    nothing: frozenset[str] = frozenset()
    loose = replace(good, name="any", digest="aa" * 32, pcrs={0: good.pcrs[0]}, files=nothing, attester=nothing)
    version = frozenset({sha256_name(b"the attester, next version")})
    other = replace(good, name="next", digest="bb" * 32, files=good.files | version, attester=version)
    answer = _window(_strict(arena, boot, "attester_code", loose, other, good))
    assert answer.verdict.attester_code is not None
    assert answer.verdict.attester_code.status == "proven"
    return answer


# -- hosts that are not what is accepted -------------------------------------------------------------------------------


def case_014_another_kernel(arena: Arena) -> Answer:
    boot = _booted()
    known = _accepting(boot)
    pcrs = {**known.pcrs, 4: (b"\x04" * 32,)}
    return _window(_world(arena, boot, replace(known, pcrs=pcrs)))


def case_015_host_set_expired(arena: Arena) -> Answer:
    boot = _booted()
    return _window(_world(arena, boot, _accepting(boot, not_after=NOON - timedelta(seconds=1))))


def case_016_a_stranger_runs_in_production(arena: Arena) -> Answer:
    """A program that the owner does not name runs beside the attester: what it measures is the host's word again."""
    boot = _booted()
    world = _strict(arena, boot, "attester_code", _accepting(boot))
    assert _window(world).verdict.opens
    world.host.runs("/usr/bin/strace", b"debugger")
    return world.window()


def case_017_a_violation(arena: Arena) -> Answer:
    """A measured file was open for writing while it was measured."""
    boot = _booted()
    world = _world(arena, boot, _accepting(boot))
    assert _window(world).verdict.opens
    world.host.violates("/models/tiny/model.safetensors")
    return world.window()


def case_018_secure_boot_off_in_production(arena: Arena) -> Answer:
    boot = Boot(_BANKS)
    boot.firmware_begins(secure_boot=b"\0")
    boot.event(4, 0x80000003, b"\0" * 32, b"kernel")
    boot.firmware_ends()
    boot.kernel(_FILES)
    return _demanding(arena, boot, "secure_boot")


def case_021_a_command_line_added_after_the_boot(arena: Arena) -> Answer:
    """The real line is told as something else, and a better one was extended behind it; nobody accepts the register."""
    boot = Boot(_BANKS)
    boot.firmware_begins()
    boot.event(4, APPLICATION, image(""), b"vmlinuz")
    boot.event(8, IPL, b"grub_cmd: echo", b"/vmlinuz root=/dev/sda1 rw init=/bin/sh")
    boot.firmware_ends()
    boot.grub_says("kernel_cmdline: ", f"/vmlinuz {STRICT_LINE}")
    boot.kernel(_FILES)
    return _window(_strict(arena, boot, "secure_boot"))
