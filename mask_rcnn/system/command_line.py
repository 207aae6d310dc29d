"""What the three commands share: help, synopsis, ``--version``, ``-q``, ``-v``, ``--device``, and exit statuses."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from mask_rcnn.system.console import NORMAL, QUIET, VERBOSE, console, forgiving_streams
from mask_rcnn.version import __version__

DONE, NOTHING_DONE, WRONG_COMMAND_LINE, STOPPED = 0, 1, 2, 130  # exit statuses; 130 is what shells report of Ctrl-C
STATUSES = """\
exit status:
  0    done; files that could not be used are named on standard error
  1    nothing could be done; one line on standard error gives the reason and the remedy
  2    wrong command line
  130  stopped with Ctrl-C; the same command goes on from there"""

DEVICE = re.compile(r"auto|cpu|gpu(?::(\d+))?")

_NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")  # argparse's own notion of what is a value


class CommandLine(argparse.ArgumentParser):
    """The parser of a command: with options of all commands, and one line about what is wrong with a command line.

    Args:
        prog: name of the command, ``inference.py``.
        description: what it does, a sentence.
        synopsis: the options that matter, without the command's name.
        examples: command lines, for ``--help``; the first also stands in the synopsis.
    """

    def __init__(self, prog: str, description: str, synopsis: str, examples: Sequence[str]) -> None:
        listed = "\n".join(f"  {example}" for example in examples)
        super().__init__(
            prog=prog, description=description, usage=f"{prog} {synopsis}", add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example{'s' if len(examples) > 1 else ''}:\n{listed}\n\n{STATUSES}",
        )  # fmt: skip
        self._synopsis = (f"usage: {prog} {synopsis}\n{description}\n"
                          f"example: {examples[0]}\n{prog} --help lists all options\n")

    def add_common(self) -> None:
        """Adds the options that all commands have, to be listed behind their own."""
        self.add_argument("--device", type=device_name, default="auto", metavar="DEVICE",
                          help="auto, cpu, gpu or gpu:N (default: auto, a GPU where there is one)")
        amount = self.add_mutually_exclusive_group()
        amount.add_argument("-q", "--quiet", dest="verbosity", action="store_const", const=QUIET, default=NORMAL,
                            help="print results and errors alone")
        amount.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=VERBOSE,
                            help="print versions and the time of each step too")
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")
        self.add_argument("-h", "--help", action="help", help="print this help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """The arguments; an empty command line gets the synopsis, and exit status 2."""
        given = sys.argv[1:] if args is None else list(args)
        if not given:
            self.exit(WRONG_COMMAND_LINE, self._synopsis)
        for word in given:
            if word == "--":
                break
            self._refuse_unknown(word)
        arguments: argparse.Namespace = super().parse_args(given, namespace)
        return arguments

    def _refuse_unknown(self, word: str) -> None:
        """Ends with the nearest option where a word is meant as one and is none; argparse would first miss others."""
        name = word.partition("=")[0]
        if not word.startswith("-") or word == "-" or " " in word or _NEGATIVE_NUMBER.fullmatch(word):
            return
        known = self._option_string_actions
        if name in known or (name.startswith("--") and any(option.startswith(name) for option in known)):
            return
        if not name.startswith("--") and name[:2] in known and len(name) <= 3:  # -vq
            return
        near = difflib.get_close_matches(name.lstrip("-"), [option.lstrip("-") for option in known], n=1, cutoff=0.5)
        meant = next((option for option in known if near and option.lstrip("-") == near[0]), None)
        self.error(f"unknown option {name}" + (f"; did you mean {meant}?" if meant else ""))

    def error(self, message: str) -> NoReturn:
        """Ends with one line and exit status 2."""
        self.exit(WRONG_COMMAND_LINE, f"{self.prog}: {message.rstrip('?.')}{'?' if message.endswith('?') else ';'} "
                                      f"{self.prog} --help lists all options\n")


def run_command(
    argv: Sequence[str] | None,
    parse: Callable[[Sequence[str]], argparse.Namespace],
    run: Callable[[argparse.Namespace, Sequence[str]], int],
    complaint: Callable[[BaseException, argparse.Namespace], str | None],
) -> int:
    """Parses a command line and runs its command; returns the exit status.

    Args:
        argv: without the command's name; None takes the process's own.
        parse: makes the arguments of it.
        run: the command, from arguments and ``argv`` to the exit status.
        complaint: the line about an error of the command, or about Ctrl-C; None where it is a fault of the program.

    Raises:
        SystemExit: the command line is wrong, or wants help or the version.
    """
    forgiving_streams()
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(given)
    with console(arguments.verbosity):
        try:
            return run(arguments, given)
        except (Exception, KeyboardInterrupt) as error:
            line = complaint(error, arguments)
            if line is None:
                raise
            print(line, file=sys.stderr)
            return STOPPED if isinstance(error, KeyboardInterrupt) else NOTHING_DONE


def positive(text: str) -> int:
    """A whole number from 1, as ``type`` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text}")
    return int(text)


def device_name(text: str) -> str:
    """``auto``, ``cpu``, ``gpu`` or ``gpu:N``, as ``type`` of an option."""
    if not DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, gpu or gpu:N, not {text}")
    return text


def names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    """A ``type`` of an option that takes names of these, separated by commas; returned in the order of ``known``."""

    def names(text: str) -> list[str]:
        given = [name.strip() for name in text.split(",")]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise argparse.ArgumentTypeError(f"unknown {name!r} of {', '.join(known)}; did you mean {near}?")
        return [name for name in known if name in given]

    return names
