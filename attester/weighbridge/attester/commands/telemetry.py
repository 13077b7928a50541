"""``weighbridge-attester telemetry list | watch | record | import``: the sensors of this host, outside of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.attester.commands import telemetry_import, telemetry_list, telemetry_record, telemetry_watch

if TYPE_CHECKING:
    import argparse

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
Recordings are what baselines are fitted to (`weighbridge baseline fit`). Nothing of these is signed, and no challenge
dates them; of a session's signed windows a verifier makes recordings (`weighbridge baseline record`).

examples:
  # what is there to be read on this host?
  weighbridge-attester telemetry list

  # look at it
  weighbridge-attester telemetry watch --telemetry nvml --telemetry linux-host

  # twenty windows of ten seconds, of every GPU; begin before the load does: sessions begin idle
  weighbridge-attester telemetry record --gpu nvml --telemetry nvml --telemetry engine --seconds 200 \\
      --label monday --scope-engine 'vllm 0.11' --scope-workload chat --scope-manifest llama.json -o monday.wbr

  # without hardware, and without waiting: twelve runs of the same two GPUs, idle at first, then under a varied load
  weighbridge-attester telemetry record --gpu emulated:2 --gpu-vendor state/insecure-emulated-gpus \\
      --emulated-runs 12 --seconds 200 --idle 10 --load 200+1000..400+3000 --label demo -o demo.wbr

  # somebody's measurements
  weighbridge-attester telemetry import --csv trace.csv --time t_s:s --column power=watts:W --label wall \\
      --scope-gpu-model H100 --scope-driver unknown --scope-engine unknown --scope-workload bench -o wall.wbr
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``telemetry`` to ``parser``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, module, text in (
        ("list", telemetry_list, "what sources there are, what each finds here, and why one is of no use"),
        ("watch", telemetry_watch, "show readings as they come: a table on a terminal, lines elsewhere"),
        ("record", telemetry_record, "write what sensors read, and the work that was declared, to a recording"),
        ("import", telemetry_import, "make a recording of a table of measurements"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.allow_abbrev = False
        module.configure(action)
        action.set_defaults(action_call=module.run)


def run(args: argparse.Namespace) -> int:
    """Do the action.

    Raises:
        WeighbridgeError: as the action does.
    """
    return int(args.action_call(args))  # lenient: an ExitCode
