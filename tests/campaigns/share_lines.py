"""Share lines, whole and broken: the same run bit for bit, or one line."""

import random
from dataclasses import replace
from itertools import islice

from tinyvae.runs import Config, parse_share, scheduled_steps, share
from tinyvae.settings import Settings, Update
from tinyvae.training import Diverged

PIECES = [
    "@",
    ":",
    "=",
    "-",
    "_",
    "e",
    "1",
    "0",
    "9" * 400,
    "%",
    "%00",
    "nan",
    "inf",
    "θ",
    "\x1b[31m",
    "\n",
    " ",
    "1e400",
]
PIECES += [
    "theta=0",
    "phi=2",
    "n=5",
    "n=10000000000000",
    "hidden=4-4",
    "hidden=-",
    "beta=0",
    "samples=0",
    "data=12345678",
]
PIECES += [
    "noise_std=1e-300",
    "learning_rate=1e300",
    "precision=float16",
    "latent_dim=3",
    "batch_size=-1",
    "update=x",
]


def good(chance: random.Random) -> str:
    name = chance.choice(["arc", "crossing", "linear", "bars", "pinwheel"])
    config = Config(
        dataset=name, n=chance.choice([5, 20]), hidden=chance.choice([(), (4,), (3, 2)]), seed=chance.randrange(9),
        batch_size=chance.choice([1, 4, 64]), samples=chance.choice([1, 2]), beta=chance.choice([1.0, 0.5, 4.0]),
        precision=chance.choice(["float64", "float32"]), covariance=chance.choice(["diagonal", "full"]),
        optimizer=chance.choice(["adam", "sgd"]), update=Update(phi=chance.random() < 0.8),
    )  # fmt: skip
    steps = sorted(chance.sample(range(6), chance.randrange(4)))
    schedule = []
    for step in steps:
        update = Update(
            chance.random() < 0.5, chance.random() < 0.5, chance.randrange(11), chance.randrange(11)
        )
        rate, samples = chance.choice([1e-3, 0.1]), chance.choice([1, 3])
        schedule.append((step, Settings(update, rate, rate / 2, chance.choice(["adam", "sgd"]), samples, 4)))
    return share(config.open().resolved, tuple(schedule), 6)


def broken(line: str, chance: random.Random) -> str:
    for _ in range(chance.choice([1, 1, 2, 3])):
        place, words = chance.randrange(len(line) + 1), line.split(":")
        way = chance.randrange(6)
        if way == 0:
            line = line[:place] + chance.choice(PIECES) + line[place:]
        elif way == 1:
            line = line[:place] + line[place + chance.randrange(1, 9) :]
        elif way == 2:
            line = (
                line[:place]
                + chr(chance.choice([chance.randrange(32, 127), chance.randrange(0x3000)]))
                + line[place + 1 :]
            )
        elif way == 3:
            words.insert(chance.randrange(len(words) + 1), chance.choice(PIECES))
            line = ":".join(words)
        elif way == 4:
            chance.shuffle(words)
            line = ":".join(words)
        else:
            line = line[:place]
    return line


def case(chance: random.Random) -> str:
    line = whole = good(chance)
    if chance.random() < 0.8:
        line = broken(whole, chance)
    try:
        config, schedule, last = parse_share(line)
        one, other = (replace(config, evaluate_every=0).open() for _ in range(2))
        for trainer in (one.trainer, other.trainer):  # on a plane looking takes long, and changes nothing
            trainer.evaluate_every = 2 if one.model.latent_dim == 1 else 0
    except ValueError as problem:
        assert line != whole, str(problem)
        assert str(problem) and "\n" not in str(problem), f"{line!r}: {problem!r}"
        return "one line"
    ends = []
    for opened in (one, other):
        try:
            for _ in islice(scheduled_steps(opened.trainer, schedule, min(last, 6)), 6):
                pass
            ends.append(opened.trainer.theta.tobytes() + opened.trainer.phi.tobytes())
        except Diverged as problem:
            ends.append(str(problem).encode())
    assert ends[0] == ends[1], f"{line!r}: two runs differ"
    again = share(one.resolved, schedule, last)
    assert parse_share(again)[1:] == (schedule, last), f"{line!r} becomes {again!r}"
    assert again == share(*(lambda c, s, n: (c.open().resolved, s, n))(*parse_share(again))), (
        f"{line!r}, {again!r}"
    )
    if line == whole:
        assert again == whole
        return "the same run"
    return "another good line"
