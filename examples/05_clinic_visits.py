"""Tables for the example of docs/protocols/rounds.md: visits to three clinics, made up, and who came back.

The argument names a folder. Each party's rows go to its own folder below it, and `visits.csv` holds the rows of all
three clinics, for a simulation. Columns are of very different scale, and patients differ from clinic to clinic.
"""
# ruff: noqa: INP001, T201

import sys
from pathlib import Path

import numpy as np
import polars as pl

FILES = {  # rows and mean age
    "institute/held_out.csv": (1000, 60),
    "clinic-a/visits.csv": (1200, 50),
    "clinic-b/visits.csv": (1500, 60),
    "clinic-c/visits.csv": (2000, 70),
}


def visits(draws: np.random.Generator, rows: int, age: int) -> pl.DataFrame:
    """Old, poor and long-staying patients come back more often, and those whose pressure is too low or too high."""
    ages = np.clip(draws.normal(age, 15, rows).round(), 18, 100)
    pulse, pressure = draws.normal(80, 12, rows).round(), draws.normal(130, 20, rows).round()
    stay, income = 1 + draws.poisson(5, rows), draws.lognormal(10.3, 0.6, rows).round()
    log_odds = (
        0.05 * (ages - 60)
        + 0.02 * (pulse - 80)
        + 0.0025 * ((pressure - 130) ** 2 - 400)
        + 0.2 * (stay - 6)
        - 1.2 * (np.log(income) - 10.3)
    )
    back = (draws.random(rows) < 1 / (1 + np.exp(0.5 - log_odds))).astype(int)
    return pl.DataFrame(
        {"age": ages, "pulse": pulse, "pressure": pressure, "stay": stay, "income": income, "readmitted": back}
    )


folder, draws, of_clinics = Path(sys.argv[1]), np.random.default_rng(7), []
for number, (name, (rows, age)) in enumerate(FILES.items()):
    table = visits(draws, rows, age).with_row_index("visit", offset=10_000 * (number + 1))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    table.write_csv(folder / name)
    print(f"{name}: {rows} visits, {table['readmitted'].mean():.0%} came back")
    of_clinics += [table] if name.startswith("clinic") else []
pl.concat(of_clinics).write_csv(folder / "visits.csv")
