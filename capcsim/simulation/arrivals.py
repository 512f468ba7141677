"""When queries come: drawn by the scenario's seed, or read from a trace."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capcsim.errors import InputError
from capcsim.scenario import AtOnce, Hours, Poisson, Scenario, Trace, Working
from capcsim.seeds import Seeds
from capcsim.simulation.windows import Windows

Times = NDArray[np.float64]
_HOUR_S = 3600.0


def windows(scenario: Scenario, party: int, hours: Hours) -> Windows:
    """Hours by the clock of a party's site."""
    site = scenario.group_of(party).site
    return Windows(scenario.calendar, scenario.sites[site].utc_offset_h if site else 0.0, hours)


def arrivals_s(scenario: Scenario, querier: int, count: int) -> Times | None:
    """When each of a querying party's first `count` queries comes, ascending float64[count]; None: all are there.

    Raises InputError for a trace that cannot be read, or has fewer.
    """
    workload = scenario.workload_of(querier)
    match workload:
        case AtOnce():
            return None
        case Trace():
            return _of_trace(workload.path, scenario.members[querier].name, count)
        case Poisson() | Working():
            gaps = Seeds(scenario.seed).generator("arrivals", querier).exponential(size=count)
            came_s = np.cumsum(gaps) * _HOUR_S / workload.per_hour
            if isinstance(workload, Poisson):
                return came_s
            open_ = windows(scenario, querier, workload)
            return np.array([open_.at_open_s(float(each)) for each in came_s])


def _of_trace(path: Path, party: str, count: int) -> Times:
    """The party's times, or those that name none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InputError(f"workload.path: {path}: {reason}") from None
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    header = [cell.strip() for cell in rows[0]] if rows else []
    if "at_s" in header:
        rows = rows[1:]
    else:
        header = ["at_s"]
    times = [_time(path, row, header) for row in rows if _is_of(row, header, party)]
    if len(times) < count:
        whose = f" of {party}" if "party" in header else ""
        raise InputError(f"workload.path: {path}: {len(times)} times{whose}, but {count} queries are wanted")
    return np.sort(np.array(times))[:count]


def _is_of(row: list[str], header: list[str], party: str) -> bool:
    if "party" not in header:
        return True
    place = header.index("party")
    return place < len(row) and row[place].strip() == party


def _time(path: Path, row: list[str], header: list[str]) -> float:
    place = header.index("at_s")
    try:
        found = float(row[place])
    except (ValueError, IndexError):
        found = -1.0
    if not 0 <= found <= 1e9:
        raise InputError(f"workload.path: {path}: {','.join(row)!r}: seconds from the start, from 0 to 1e9")
    return found
