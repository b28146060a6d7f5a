"""The command ``repast-dist``: read overrides, check settings, run one study or a sweep.

What computes is imported once there is something to do: ``--help`` answers at once.
"""

import argparse
import io
import itertools
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repast_dist import __version__
from repast_dist.ground.errors import RepastError, SettingsError, Stopped
from repast_dist.ground.interrupts import STOP_SIGNALS, interrupt
from repast_dist.ground.presets import setting_groups

# What names Hydra's own settings: `hydra.run.dir=...`, `hydra/launcher=...`.
_FOR_HYDRA = re.compile(r"[+~]*hydra[./@]")
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")

_DESCRIPTION = (
    "Simulate second-order DNN training on a farm of RePAST chips: accuracy, time, energy and area "
    "in one run."
)
_EXAMPLES = """\
examples:
  repast-dist                              train the default network on 4 chips
  repast-dist farm.chips=8 inversion.method=refine
  repast-dist model=digits_mlp optimizer=sgd farm.backend=inprocess
  repast-dist -m farm.chips=1,2,4 inversion.method=taylor,fcg
  repast-dist study=explain chip=repast    what a chip is made of, with sources
  repast-dist study=headline               RePAST beside a GPU and PipeLayer
  repast-dist study=scaling workload=resnet50    1 to 1,024 chips, cost only
  repast-dist resume=runs/train/2026-01-31_12-00-00
  repast-dist resume=s3://bucket/runs/one  go on with a copy (storage.uri=...)
  repast-dist open                         all runs on one page
"""
_LAST = "All settings with their values: repast-dist --cfg"
_NARROWEST = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 failed, 2 wrong settings, 130 Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    # A line of a log that nobody reads any more is no error.
    logging.raiseExceptions = False
    _stop_like_ctrl_c()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no "µ" shows a question mark.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return _status(words)
    except KeyboardInterrupt:
        # Again, while the first was told.
        return EXIT_INTERRUPTED


def _status(words: Sequence[str]) -> int:
    """Run the command, tell what went wrong in one line, and return the exit status."""
    try:
        return _run(parsed(words))
    except SettingsError as error:
        return _fail(error, EXIT_USAGE)
    except RepastError as error:
        return _fail(error, EXIT_FAILED)
    except BrokenPipeError:
        # Who reads has seen enough, as with `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        return _fail(error, EXIT_FAILED)
    except MemoryError as error:
        return _fail(f"out of memory ({error})", EXIT_FAILED)
    except Stopped:
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        # A terminal has shown ^C.
        print("\ninterrupted" if sys.stderr.isatty() else "interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command line, with its settings as ``overrides``."""
    parser = _parser()
    options = parser.parse_intermixed_args(list(_with_choices(words)))
    for flag, given in (("-p/--package", options.package), ("--resolve", options.resolve)):
        if given and not options.cfg:
            parser.error(f"argument {flag}: changes what --cfg prints; valid: with --cfg")
    if options.run and options.multirun:
        parser.error("argument -r/--run: not with -m/--multirun; valid: one of them")
    resumes = any(item.startswith("resume=") for item in options.overrides)
    if options.jobs and not (options.multirun or resumes):
        parser.error("argument -j/--jobs: one run has no others beside it; valid: with -m")
    return options


def _flags() -> dict[str, Sequence[str] | None]:
    """Return all flags with the values that they take, as `hydra_app.Flags`."""
    return {
        flag: None if action.nargs == 0 else tuple(action.choices or ())
        for action in _parser()._actions
        for flag in action.option_strings
    }


def _with_choices(words: Sequence[str]) -> Iterator[str]:
    """Yield the words; ``--cfg`` and ``--info`` in front of a setting mean their first choice."""
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        yield word
        if word in ("--cfg", "-c") and following not in ("job", "hydra", "all"):
            yield "job"
        elif word in ("--info", "-i") and following not in _INFO:
            yield "all"


def _stop_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP end a study as Ctrl-C does: what is finished is kept."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in STOP_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, interrupt)


def _run(options: argparse.Namespace) -> int:
    if options.overrides[:1] == ["open"]:
        options.overrides = _opening(options.overrides[1:])
    from repast_dist.api.running import answer, resume, sweep

    resumed, overrides = split_resume(options.overrides)
    where = {"config_dir": options.config_dir, "config_name": options.config_name}
    if resumed is not None:
        if options.multirun:
            raise SettingsError("resume: one run at a time; leave out --multirun")
        resume(resumed, *overrides, jobs=options.jobs, quiet=False)
    elif options.info or options.shell_completion or options.cfg in ("hydra", "all"):
        from repast_dist import hydra_app

        hydra_app.tell(options, hydra_app.Where(**where), overrides, _flags())
    elif options.cfg:
        print(_settings_as_yaml(overrides, options), end="")
    elif any(_FOR_HYDRA.match(item) for item in overrides):
        from repast_dist import hydra_app

        hydra_app.launch(
            overrides, hydra_app.Where(**where), multirun=options.multirun, jobs=options.jobs
        )
    elif options.multirun:
        sweep({}, *overrides, jobs=options.jobs, quiet=False, **where)
    else:
        answer(overrides, quiet=False, **where)
    return EXIT_OK


def _settings_as_yaml(overrides: Sequence[str], options: argparse.Namespace) -> str:
    from repast_dist.api.loading import checked_settings
    from repast_dist.ground.spec import to_dict
    from repast_dist.settings import as_yaml, expand_sweep

    points = expand_sweep(overrides) if options.multirun else [list(overrides)]
    where = (options.config_dir, options.config_name)
    plain = [to_dict(checked_settings(point, *where)) for point in points]
    if options.package:
        plain = [_part(item, options.package) for item in plain]
    return "---\n".join(as_yaml(item) for item in plain)


def _part(settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the settings below a dotted path, as they stand in a file of that group."""
    found: Any = settings
    way = ""
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            below = [f"{way}{key}" for key in found] if isinstance(found, Mapping) else [way[:-1]]
            raise SettingsError(f"--package: no settings at '{path}'; valid: {', '.join(below)}")
        found, way = found[name], f"{way}{name}."
    return dict(found) if isinstance(found, Mapping) else {name: found}


def _opening(words: Sequence[str]) -> list[str]:
    """Return the settings that ``open [FOLDER] [KEY=VALUE ...]`` stands for."""
    folders = [word for word in words if "=" not in word or Path(word).is_dir()]
    if len(folders) > 1:
        raise SettingsError(f"open: {len(folders)} folders; valid: open FOLDER")
    from repast_dist.api.loading import as_text

    named = [f"run_root={as_text(folder, 'open')}" for folder in folders]
    return ["study=runs", "study.browser=true", *named, *(w for w in words if w not in folders)]


def split_resume(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take ``resume=RUN_DIR``, or ``resume=URI``, out of the overrides."""
    found = [item for item in overrides if item.startswith("resume=")]
    if len(found) > 1:
        raise SettingsError("resume: given twice; valid: one run directory")
    if found == ["resume="]:
        raise SettingsError("resume: names no run; valid: resume=RUN_DIR")
    rest = [item for item in overrides if item not in found]
    return (found[0].partition("=")[2] if found else None), rest


def _fail(error: Exception | str, status: int) -> int:
    for line in str(error).splitlines():
        print(f"repast-dist: error: {line}", file=sys.stderr)
    return status


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs; valid: 1 or more")
    return int(text)


def _groups(width: int) -> str:
    """Return the groups of settings with their options, in lines of at most so many characters."""
    about = (
        "groups and their options (GROUP=OPTION chooses a file of conf/, GROUP.KEY=VALUE sets one "
        "value):"
    )
    lines = [textwrap.fill(about, width)]
    for name, options in setting_groups().items():
        first, indent = f"  {name:<14}", " " * 16
        lines.append(
            textwrap.fill(
                ", ".join(options),
                width,
                initial_indent=first,
                subsequent_indent=indent,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    # As wide as argparse makes the rest.
    width = max(shutil.get_terminal_size().columns - 2, _NARROWEST)
    parser = argparse.ArgumentParser(
        prog="repast-dist",
        description=textwrap.fill(_DESCRIPTION, width),
        epilog=f"{_EXAMPLES}\n{_groups(width)}\n\n{_LAST}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="run every combination of a=1,2 b=x,y"
    )
    parser.add_argument(
        "-j", "--jobs", type=_count, metavar="N",
        help="how many runs of -m at a time; without it, as many as there are processors for",
    )  # fmt: skip
    parser.add_argument(
        "-c", "--cfg", nargs="?", const="job", choices=("job", "hydra", "all"),
        help="print the settings and stop; hydra, all: with Hydra's own",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--package", metavar="PATH", help="with --cfg: only those below, such as chip.adc"
    )
    parser.add_argument(
        "--resolve",
        action="store_true",
        help="with --cfg hydra or all: references worked out",
    )
    parser.add_argument(
        "-i", "--info", nargs="?", const="all", choices=_INFO, metavar="WHAT",
        help=f"print what Hydra found and where: {', '.join(_INFO)}",
    )  # fmt: skip
    parser.add_argument(
        "-cd", "--config-dir", type=Path, metavar="DIR", help="a folder with groups of your own"
    )
    parser.add_argument(
        "-cn", "--config-name", metavar="NAME", default="config",
        help="another file of defaults, such as one in that folder",
    )  # fmt: skip
    parser.add_argument("-r", "--run", action="store_true", help="one run, as without it")
    parser.add_argument(
        "-sc", "--shell-completion", action="store_true",
        help='tab completion: eval "$(repast-dist -sc install=bash)" (zsh takes it, too; fish)',
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
