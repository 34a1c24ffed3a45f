# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The commands of ``python -m glas_wsol``, one module each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

__all__ = ["add_with_settings"]


def add_with_settings(
    commands: argparse._SubParsersAction, run: Callable[[Any, dict[str, str]], None], name: str, text: str, **said: Any
) -> Callable[..., Any]:
    """Add a command among whose arguments settings of the config may be.

    Args:
        run: what it does, given its own options, and the settings by their ids, as typed.
        text: its help.
        said: ``typed``, what names a setting on its command line; ``instead``, settings that may not be given so and
            what to do instead; ``usage`` and ``example``; ``more``, further sentences of its help.

    Returns:
        ``add_argument`` for its own options.
    """
    parser = argparse.ArgumentParser(
        description=f"{text.capitalize()}.{said.get('more', '')}",
        usage=f"%(prog)s {said['usage']} [options] [--id value ...]",
        epilog=f"Any other --id value is a setting of {said.get('config', 'the config (docs/settings.md)')}, such as: "
        + said["example"],
    )

    def split_and_run(arguments: argparse.Namespace) -> None:
        from glas_wsol.bundle.overrides import parse_overrides, split_overrides

        own, rest = split_overrides(parser, arguments.arguments)
        settings = parse_overrides(rest, said["instead"])  # first: an option of another name is refused with its own
        run(parser.parse_args(own), settings)

    # two parsers: argparse alone cannot tell options of its own from settings
    command = commands.add_parser(name, help=text, prefix_chars="\0", add_help=False)
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    command.set_defaults(command=split_and_run, typed=said["typed"])
    parser.prog = command.prog
    return parser.add_argument
