"""Sequences of step, switch, settings, rewind, branch in a session against a fresh run of its line, bit for bit."""

import random
from typing import Any

import numpy as np

from tinyvae.runs import Config, parse_share, scheduled_steps
from tinyvae.tui.session import Session

CONFIGS = [
    Config(dataset="arc", n=30, hidden=(5,), batch_size=8),
    Config(dataset="crossing", n=20, hidden=(4, 3), samples=2),
    Config(dataset="arc", n=24, hidden=(), precision="float32", batch_size=24),
    Config(dataset="linear", n=12, hidden=(), batch_size=5),
]  # fmt: skip
SETTINGS: dict[str, list[Any]] = {
    "theta_rate": [1e-3, 0.02], "phi_rate": [1e-3, 0.02], "theta_steps": [0, 1, 3], "phi_steps": [0, 1, 2],
    "samples": [1, 3], "batch_size": [1, 6, 100], "optimizer": ["adam", "sgd"], "beta": [0.0, 1.0, 2.0],
}  # fmt: skip


def case(chance: random.Random) -> str:
    session = Session(chance.choice(CONFIGS))
    done = []
    for _ in range(chance.randrange(5, 40)):
        what = chance.choice(
            ["step"] * 4 + ["switch", "settings", "look", "branch", "reset", "view", "path", "select"]
        )
        done.append(what)
        if what == "step":
            for _ in range(chance.randrange(1, 12)):
                session.step_once()
        elif what == "switch":
            session.switch(chance.choice(["theta", "phi"]))
        elif what == "settings":
            name = chance.choice(list(SETTINGS))
            session.change("", **{name: chance.choice(SETTINGS[name])})
        elif what == "look":
            session.look_at(chance.randrange(session.step + 1))
        elif what == "branch":
            session.branch()
        elif what == "reset" and chance.random() < 0.3:
            session.reset()
        elif what == "view":
            session.view()
        elif what == "path":
            session.path(10)
        elif what == "select":
            session.select(chance.randrange(100))
    config, schedule, last = parse_share(session.share_string)
    fresh = config.open().trainer
    records = [fresh.record(), *scheduled_steps(fresh, schedule, last)]
    mine = [session.history.row(step) for step in range(last + 1)]
    assert fresh.theta.tobytes() == session.trainer.theta.tobytes(), f"θ after {done}: {session.share_string}"
    assert fresh.phi.tobytes() == session.trainer.phi.tobytes(), f"φ after {done}: {session.share_string}"
    for old, record in zip(mine, records, strict=True):
        new = record.as_row()
        for name in (
            "log_px",
            "reconstruction",
            "kl_prior",
            "kl_posterior",
            "elbo",
            "grad_norm_theta",
            "grad_norm_phi",
        ):
            value = np.nan if new[name] is None else new[name]
            same = np.isnan([value, old[name]]).all() or value == old[name]
            assert same, f"{name} at step {record.step} after {done}: {session.share_string}"
    return "branched, the same bits" if "branch" in done else "the same bits"
