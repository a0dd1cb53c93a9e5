"""The command line: `tinyvae` opens the app, `tinyvae train` is the same run without a screen.

Nothing heavy is imported before the arguments are known to be good.
"""

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from . import arguments, signals
from .exit_codes import BAD_INPUT, DIVERGED, GOOD, READER_LEFT
from .output import give_up_stdout, last_words, prepare_streams, printable

if TYPE_CHECKING:
    from tinyvae.runs import Config, Schedule


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line."""

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="")  # argparse would not say that the output cannot be written

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"tinyvae: {printable(message)} (tinyvae --help explains every option)\n")


EXAMPLES = """\
examples:
  tinyvae                                       watch a VAE learn an arc
  tinyvae --dataset crossing --speed max        a posterior with two modes
  tinyvae --dataset my.csv --latent-dim 2       your own data, one row a data point
  tinyvae --dataset iris.csv --color species    the points in the colours of a column that is not trained on
  tinyvae --dataset wine.csv --standardize      columns of very different size, or far from 0
  tinyvae train --steps 2000 --out run.csv      the same without a screen
  tinyvae train --steps 500 --freeze theta      only the encoder learns
  tinyvae lessons check                         the essay's claims against their numbers
  tinyvae train --record run.sqlite             a run that is a file: kill it, and
  tinyvae resume run.sqlite                     it goes on bit for bit; with --app, on the screen
  tinyvae replay run.sqlite other.sqlite        the whole history on the screen, beside that of another run

exit codes: 0 good; 1 a claim of a lesson failed; 2 bad input, or a file that cannot be read or written;
  3 the run diverged; 129, 130, 143 ended by a signal (SIGHUP, Ctrl-C, SIGTERM); 141 the reader of the output has left
"""


def recommendations() -> str:
    """The settings of each built-in set, as a table for --help."""
    from tinyvae.presets import RECOMMENDED

    rows = [("", "points", "hidden", "covariance", "rate", "batch", "samples", "noise born at")]
    for name, one in RECOMMENDED.items():
        hidden, noise = ",".join(map(str, one.hidden)), "(bits)" if name == "bars" else f"{one.noise_init:g}"
        rate = f"{one.learning_rate:g}"
        rows.append(
            (name, str(one.n), hidden, one.covariance, rate, str(one.batch_size), str(one.samples), noise)
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["what is recommended for each set, and used where nothing is said:"]
    lines += ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.append("  your own file: all of its points, noise born at 0.15 of their spread, the rest as for arc")
    return "\n".join(lines)


def run_options() -> Parser:
    """What the app and `train` have in common."""
    run = Parser(add_help=False)
    data = run.add_argument_group("data")
    data.add_argument(
        "--dataset", default="arc", metavar="NAME|FILE",
        help="arc, crossing, pinwheel, linear, linear-test, bars, or a .csv, .npy or .npz file (default: arc)",
    )  # fmt: skip
    data.add_argument(
        "--points", type=arguments.whole(2), metavar="N", help="how many data points (default: recommended)"
    )
    data.add_argument(
        "--data-seed", type=arguments.whole(0), default=0, metavar="K", help="seed of the dataset (default: 0)"
    )
    data.add_argument(
        "--holdout", type=arguments.part, metavar="P",
        help="part of a file's rows that is not trained on; a built-in set has fresh points (default: none)",
    )  # fmt: skip
    data.add_argument(
        "--columns", type=arguments.names, metavar="A,B",
        help="train on these columns of a file, by the names in its header, or x1,x2 without one (default: all)",
    )  # fmt: skip
    data.add_argument(
        "--skip-columns", type=arguments.names, metavar="A,B", help="train on all columns of a file but these"
    )
    data.add_argument(
        "--color", metavar="COLUMN",
        help="colour the points by this column, of at most 8 different values or words; it is not trained on",
    )  # fmt: skip
    data.add_argument(
        "--header", type=arguments.yes_or_no, metavar="yes|no",
        help="whether the first line of a file is names (default: as it looks)",
    )  # fmt: skip
    data.add_argument(
        "--standardize", action="store_true",
        help="train on (x − mean) / std of each column of a file; log p(x), reconstruction and ELBO stay those of "
        "the data in the file, noise scales are in units of std",
    )  # fmt: skip
    model = run.add_argument_group("model")
    model.add_argument(
        "--latent-dim",
        type=arguments.latent_dim,
        metavar="1|2",
        help="dimensions of z (default: the dataset's)",
    )
    model.add_argument(
        "--hidden", type=arguments.widths, metavar="W,W",
        help="widths of the hidden layers, none for a linear model (default: recommended)",
    )  # fmt: skip
    model.add_argument(
        "--likelihood", choices=("gaussian", "bernoulli"), help="of x given z (default: the dataset's)"
    )
    model.add_argument("--covariance", choices=("diagonal", "full"), help="of q (default: recommended)")
    model.add_argument(
        "--noise", choices=("shared", "per-dimension"), default="shared",
        help="one learned noise scale, or one for each data dimension (default: shared)",
    )  # fmt: skip
    model.add_argument(
        "--noise-std", type=arguments.positive, metavar="S", help="fix the noise scale instead of learning it"
    )
    model.add_argument(
        "--noise-init", type=arguments.positive, metavar="S",
        help="what a learned noise scale is born with: 1 beside data of scale 1 collapses (default: recommended)",
    )  # fmt: skip
    training = run.add_argument_group("training")
    training.add_argument(
        "--learning-rate", type=arguments.positive, metavar="R", help="step size (default: recommended)"
    )
    training.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="default: adam")
    training.add_argument(
        "--batch", type=arguments.whole(1), metavar="B", help="minibatch size (default: recommended)"
    )
    training.add_argument(
        "--samples", type=arguments.whole(1), metavar="S", help="draws of z per point (default: recommended)"
    )
    training.add_argument(
        "--beta", type=arguments.not_negative, default=1.0, metavar="B",
        help="weight of KL(q‖p(z)) in what is followed; 1 is the ELBO, the terms stay what they are (default: 1)",
    )  # fmt: skip
    training.add_argument(
        "--seed", type=arguments.whole(0), default=0, metavar="K", help="seed of the run (default: 0)"
    )
    training.add_argument(
        "--precision", choices=("float64", "float32"), default="float64",
        help="of the steps: float32 is faster; the terms are always computed in float64 (default: float64)",
    )  # fmt: skip
    training.add_argument(
        "--freeze",
        choices=("theta", "phi"),
        help="keep the decoder (theta) or the encoder (phi) as it was born",
    )
    run.add_argument(
        "--share",
        metavar="LINE",
        help="the run that this line describes, bit for bit (x in the app shows it); "
        "options for data, model and training do not count",
    )
    return run


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="tinyvae", parents=[run_options()], epilog=f"{recommendations()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Watch, exactly, what a variational autoencoder does at every training step.",
    )  # fmt: skip
    screen = top.add_argument_group("screen")
    screen.add_argument(
        "--speed",
        type=arguments.speed,
        default=50.0,
        metavar="R",
        help="steps per second, or max (default: 50)",
    )
    screen.add_argument("--paused", action="store_true", help="wait for the space key before training")
    screen.add_argument(
        "--fps", type=arguments.whole(1, 60), default=15, metavar="F", help="frames per second (default: 15)"
    )
    screen.add_argument(
        "--charset",
        choices=("braille", "block", "ascii"),
        help="what plots are drawn with (default: what fits)",
    )
    screen.add_argument(
        "--serve",
        action="store_true",
        help="show the app in a web browser on this machine; pages of others are refused, a page's run ends with it",
    )
    screen.add_argument(
        "--port", type=arguments.whole(1, 65535), default=8000, metavar="P", help="for --serve (default: 8000)"
    )
    top.add_argument("--version", action="store_true", help="print the version")

    kept = screen.add_mutually_exclusive_group()
    kept.add_argument(
        "--record", metavar="FILE", help="record the run in this file, not among the last ten runs"
    )
    kept.add_argument("--no-record", action="store_true", help="do not record it at all")

    commands = top.add_subparsers(
        dest="command", metavar="{train,certify,lessons,runs,resume,replay,export}", parser_class=Parser
    )
    shared = run_options()
    for action in shared._actions:  # an option given before `train` must not be reset by one that was not
        action.default = argparse.SUPPRESS
    train = commands.add_parser(
        "train", parents=[shared], help="the same run without a screen", description="Train without a screen.",
    )  # fmt: skip
    train.add_argument("--steps", type=arguments.whole(1), metavar="N", help="how many steps (default: 1000)")
    train.add_argument("--out", metavar="FILE", help="write one record a step to this .jsonl or .csv file")
    train.add_argument(
        "--record", metavar="FILE", default=argparse.SUPPRESS, help="record the run in this file"
    )
    train.add_argument("--force", action="store_true", help="overwrite the file of --out if there is one")
    train.add_argument(
        "--every",
        type=arguments.whole(1),
        default=1,
        metavar="K",
        help="compute the terms after every K steps (default: 1)",
    )
    train.add_argument(
        "--certify-every", type=arguments.whole(0), default=0, metavar="K",
        help="for z ∈ R², prove the terms at every K-th evaluation, which takes many times as long as to check them "
        "(default: 0, only those of the last step; for z ∈ R¹ all are proven)",
    )  # fmt: skip
    certify = commands.add_parser(
        "certify", parents=[shared], help="prove the terms where a run ends: --share LINE, or RUN, a recorded one",
        description="Train to where a run ends without looking, and prove its terms there.",
    )  # fmt: skip
    certify.add_argument("file", nargs="?", metavar="RUN", help="a recorded run")
    certify.add_argument(
        "--steps", type=arguments.whole(1), metavar="N", help="after so many steps (default: the end)"
    )
    lessons = commands.add_parser(
        "lessons", help="the essay's claims: list, run NAME, check [NAME ...]", description="The essay's claims.",
    )  # fmt: skip
    lessons.add_argument("what", nargs="?", choices=("list", "run", "check"), default="list")
    lessons.add_argument(
        "names", nargs="*", metavar="NAME", help="run: one lesson; check: which (default: all)"
    )
    lessons.add_argument(
        "--seed",
        type=arguments.whole(0),
        default=argparse.SUPPRESS,
        metavar="K",
        help="of data and runs (default: 0)",
    )
    add_recorded(commands)
    return top


def add_recorded(commands: Any) -> None:
    """What there is for recorded runs; RUN is a file, or the name of one that `tinyvae runs` lists."""
    runs = commands.add_parser(
        "runs", help="recorded runs: list, keep RUN NAME, columns", description="Recorded runs."
    )
    runs.add_argument("what", nargs="?", choices=("list", "keep", "columns"), default="list")
    runs.add_argument("names", nargs="*", metavar="RUN NAME", help="keep: which run, and the name that it gets")
    resume = commands.add_parser(
        "resume", help="go on with a recorded run, bit for bit", description="Go on with a recorded run."
    )
    resume.add_argument("file", metavar="RUN")
    resume.add_argument(
        "--steps", type=arguments.whole(1), metavar="N",
        help="how many, from the run's beginning (default: as many as it was to have)",
    )  # fmt: skip
    resume.add_argument("--app", action="store_true", help="on the screen")
    replay = commands.add_parser(
        "replay", help="a recorded run on the screen, to look back, to branch, to compare with a second one",
        description="A recorded run on the screen; its file stays as it is.",
    )  # fmt: skip
    replay.add_argument("file", nargs="?", metavar="RUN", help="default: the last one")
    replay.add_argument("other", nargs="?", metavar="OTHER", help="a run to compare it with")
    export = commands.add_parser(
        "export", help="the records of a recorded run as another file", description="Export records."
    )
    export.add_argument("file", metavar="RUN")
    export.add_argument("--to", choices=("csv", "jsonl", "npz"), required=True)
    export.add_argument("--out", metavar="PATH", required=True)
    export.add_argument("--force", action="store_true", help="overwrite PATH if it is there")


def config_from(args: argparse.Namespace) -> "tuple[Config, Schedule, int | None]":
    """The run that the arguments describe: its config, its schedule of changes, and its last step if given."""
    from tinyvae import Update
    from tinyvae.runs import Config, parse_share

    every, certify = getattr(args, "every", 1), getattr(args, "certify_every", 0)
    if args.share is not None:
        config, schedule, last = parse_share(args.share)
        return replace(config, evaluate_every=every, certify_every=certify), schedule, last
    config = Config(
        dataset=args.dataset, n=args.points, data_seed=args.data_seed, holdout=args.holdout,
        latent_dim=args.latent_dim, hidden=args.hidden, likelihood=args.likelihood, covariance=args.covariance,
        noise=args.noise, noise_std=args.noise_std, noise_init=args.noise_init, learning_rate=args.learning_rate,
        optimizer=args.optimizer, batch_size=args.batch, samples=args.samples, beta=args.beta, seed=args.seed,
        precision=args.precision, evaluate_every=every, certify_every=certify, columns=args.columns,
        skip_columns=args.skip_columns, color=args.color, header=args.header, standardize=args.standardize,
        update=Update(theta=args.freeze != "theta", phi=args.freeze != "phi"),
    )  # fmt: skip
    return config, (), None


def warn_of_old_line(config: "Config") -> None:
    """A line that was written before lines carried a digest cannot say whether a file is as it was."""
    from tinyvae import DATASETS

    if config.data is None and config.dataset not in DATASETS and os.path.exists(config.dataset):
        complain(f"the line does not say what was in {config.dataset}: if it has changed, this is another run")


def complain(problem: object) -> int:
    with suppress(OSError):  # where nobody can be told
        print(f"tinyvae: {printable(problem)}", file=sys.stderr)
    return BAD_INPUT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code (see exit_codes.py)."""
    prepare_streams()
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read the output has left: nothing more to say, not even at the end
        give_up_stdout()
        return READER_LEFT
    except OSError as problem:
        if problem.filename is not None:
            return complain(f"{problem.filename}: {problem.strerror}")
        give_up_stdout()
        return complain(f"writing the output failed: {problem.strerror or problem}")
    except MemoryError as problem:
        return complain(
            f"there is not enough memory for that ({problem or 'fewer or smaller of everything helps'})"
        )
    except (ValueError, ArithmeticError) as problem:
        return complain(problem)
    except KeyboardInterrupt as stop:
        code = signals.exit_code(stop)
        complain(signals.SAYS[code])
        return code


def _run(argv: Sequence[str] | None) -> int:
    top = parser()
    for word in sys.argv[1:] if argv is None else argv:
        if word.startswith("--") and word.partition("=")[2] == "--":  # argparse would make an empty list of it
            top.error(f"argument {word}: expected another value than --")
    try:
        args = top.parse_args(argv)
    except SystemExit:  # after --help
        sys.stdout.flush()
        raise
    if args.version:
        from importlib.metadata import version

        print(f"tinyvae {version('tinyvae')}")
        return GOOD
    if args.command == "lessons":
        from .lessons_cli import lessons

        return lessons(args.what, args.names, args.seed)
    if args.command in ("runs", "resume", "replay", "export") or (args.command == "certify" and args.file):
        from . import recordings

        if args.command == "replay" or (args.command == "resume" and args.app):
            return open_app(None, (), None, args)
        return int(getattr(recordings, args.command)(args))
    config, schedule, last = config_from(args)
    if args.share is not None:
        warn_of_old_line(config)
    if args.command == "certify":
        from .headless import certify

        return certify(config, schedule, args.steps or last or 1000)
    if args.command == "train":
        from .headless import train

        return train(config, args.steps or last or 1000, args.out, schedule, args.force, args.record)
    if args.serve:
        try:
            from .serve import serve
        except ImportError:
            raise ValueError("--serve needs one more package: pip install 'tinyvae[web]'") from None

        config.open()  # complain here about bad input, not in the browser
        return serve(argv if argv is not None else sys.argv[1:], args.port)
    return open_app(config, schedule, last, args)


def open_app(config: "Config | None", schedule: "Schedule", last: int | None, args: argparse.Namespace) -> int:
    """Open the app, on a recorded run where there is no config; after it closes, print the last terms."""
    in_browser = "TEXTUAL_DRIVER" in os.environ  # set by textual-serve
    if not in_browser and not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        return complain("the app needs a terminal; here is none. Without one, run: tinyvae train --steps 1000")
    gc.disable()  # until the app has started: nothing that is being loaded is garbage
    os.environ.setdefault("TEXTUAL_FPS", "240")  # how long a change may wait until it is drawn, not how often
    from . import recordings
    from .headless import new_file, one_line

    session, paused = None, args.paused
    if config is None:
        session, config, paused = *recordings.session_of(args), True
    else:
        config.open()  # complain about bad input before the screen changes
    into = None if args.record is None else new_file(args.record)
    from .app import TinyVAE

    charset = args.charset or fitting_charset()
    app = TinyVAE(config, args.speed, charset, args.fps, not paused, schedule, last, session)
    if not args.no_record:
        app.session.record_to = recordings.automatic if into is None else lambda _: recordings.free(into)
    signals.listen(app.end)
    if in_browser:
        signals.end_with_parent(app.end)
    app.run()
    app.session.close()
    session, code = app.session, app.return_code or GOOD
    with last_words(code):
        print(one_line(session.history.row(session.step), session.data.name))
        if session.share_string:
            print(f"the same run again: tinyvae --share {session.share_string}")
        if session.share_string_of_other:
            print(f"the run before the branch: tinyvae --share {session.share_string_of_other}")
        if session.unrecorded:
            print(f"tinyvae: {printable(session.unrecorded)}", file=sys.stderr)
        if session.file is not None:
            print(f"recorded: tinyvae replay {printable(session.file)}")
    return DIVERGED if session.stopped and code == GOOD else code


def fitting_charset() -> str:
    """Braille where the terminal can be expected to show it, else plain ASCII."""
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next((name for name in names if name), "")
    plain = locale in ("C", "POSIX") or os.environ.get("TERM") in ("linux", "dumb")
    return "ascii" if plain else "braille"
