"""The command `shadowswitch`, also as `python -m shadowswitch`.

The command line needs packages that the library does not (the extra `cli`), so it is imported only here.
"""

from __future__ import annotations

import sys

_EXTRA_CLI = frozenset({"cyclopts", "rich"})


def main() -> None:
    """Run the command line and exit with its status; without the extra `cli` say what to install and exit with 2."""
    try:
        from shadowswitch.service.cli.app import main as run
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
    except KeyboardInterrupt:  # Ctrl-C before the command has begun
        print("shadowswitch: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
