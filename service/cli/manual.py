"""The commands `manual` and `completion`: docs/cli.md and shell completion, made of the commands themselves."""

from __future__ import annotations

from typing import Literal

from cyclopts import App

from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import Json

NOTE = "<!-- made by `shadowswitch manual`; a test compares the two -->\n\n"


def add_to(app: App) -> None:
    """Make these commands of the application."""

    def manual(*, json: Json = False) -> None:
        """Print the manual of every command, as Markdown.

        Example: `shadowswitch manual | less`
        """
        _print("manual", text_of(app), json)

    def completion(shell: Literal["bash", "zsh", "fish"], *, json: Json = False) -> None:
        """Print the completion script of a shell.

        Example: `shadowswitch completion bash > ~/.local/share/bash-completion/completions/shadowswitch`

        Parameters
        ----------
        shell
            bash, zsh or fish.
        """
        _print("script", app.generate_completion(prog_name="shadowswitch", shell=shell), json)

    app.command(manual)
    app.command(completion)


def text_of(app: App) -> str:
    """The manual: docs/cli.md."""
    return NOTE + app.generate_docs(usage_name="shadowswitch").rstrip()


def _print(name: str, text: str, json: bool) -> None:
    if json:
        output.print_json({name: text})
    else:
        output.say(text)
