"""The command `shadowswitch`, also as `python -m shadowswitch`.

The command line needs packages that the library does not (the extra `cli`), so it is imported only here.
"""

from __future__ import annotations

import sys

from shadowswitch._start import INTERRUPTED, hold_interrupts, release_interrupts

_EXTRA_CLI = frozenset({"cyclopts", "rich"})


def main() -> None:
    """Run the command line and exit with its status; without the extra `cli` say what to install and exit with 2."""
    try:
        hold_interrupts()
        from shadowswitch.service.cli.app import main as run

        release_interrupts()
        status = run()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA_CLI:
            raise
        print(
            f"shadowswitch: the command line needs {missing}, which is not installed\n"
            "  pip install 'shadowswitch[cli]'\n"
            "The library itself (import shadowswitch) works without it.",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:  # between the imports and the command, which handles it itself
        print("shadowswitch: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status)


if __name__ == "__main__":
    main()
