"""The tools beside `pytest bench`: compare runs, look at them, gate a change, look back, see what a machine can do, plan."""

import argparse
import io
import sys

from bench.tools import advise, calibrate, compare, continuous, gpu, history, report, tune
from sparse_models.errors import AbsentError, InputError

TOOLS = {
    "compare": compare,
    "continuous": continuous,
    "history": history,
    "report": report,
    "calibrate": calibrate,
    "tune": tune,
    "advise": advise,
    "gpu": gpu,
}


def main(arguments: list[str]) -> int:
    """Run the tool that is asked for; bad input is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    for name, module in TOOLS.items():
        tool = tools.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(tool)
        tool.set_defaults(run=module.run)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the rules of a table are beyond ASCII
    end = arguments.index("--") if "--" in arguments else len(arguments)
    asked = parser.parse_args(arguments[:end])
    asked.others = arguments[end + 1 :]
    if asked.others and asked.run is not continuous.run:  # which hands them on to pytest
        parser.error(f"unrecognized arguments: {' '.join(arguments[end:])}")
    try:
        return int(asked.run(asked, tell))
    except (InputError, AbsentError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: interrupted\n")
    except BrokenPipeError:  # of `| head`
        sys.stderr.close()
        return 0


def tell(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
