"""What every source shares: checks at the door and spans of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrella.types import NoData, Refused

EARLIEST, LATEST = np.datetime64("1957-01-01", "ns"), np.datetime64("2100-01-01", "ns")


def check_file(path: Path) -> None:
    """Refuse what is not a readable, non-empty file.

    Raises:
        Refused: missing, a directory, empty, or not permitted.
    """
    if not path.exists():
        raise Refused(f"{path}: no such file")
    if path.is_dir():
        raise Refused(f"{path}: is a directory; give the files in it, as in {path}/*.nc")
    try:
        if path.stat().st_size == 0:
            raise Refused(f"{path}: is empty; get it again")
        with path.open("rb"):
            pass
    except OSError as error:
        raise Refused(f"{path}: cannot be opened ({error.strerror})") from None


def check_time(time: np.ndarray, where: str) -> None:
    """Refuse times that do not increase or lie outside the space age.

    Args:
        time: (samples,) datetime64.
        where: the file or series, for the message.

    Raises:
        Refused: names the first sample at fault.
    """
    if len(time) == 0:
        raise Refused(f"{where}: holds no samples")
    wild = (time < EARLIEST) | (time > LATEST) | np.isnat(time)
    if wild.any():
        raise Refused(
            f"{where}: time of sample {int(np.argmax(wild))} is not between 1957 and 2100"
        )
    back = np.diff(time) <= np.timedelta64(0, "ns")
    if back.any():
        k = int(np.argmax(back)) + 1
        raise Refused(
            f"{where}: time does not increase at sample {k} ({time[k - 1]} then {time[k]}); "
            "sort the file or get it again"
        )


def no_data(what: str, start: np.datetime64, stop: np.datetime64, has: str) -> NoData:
    """A ``NoData`` that names the span looked for and what the source has."""
    return NoData(f"{what}: nothing between {iso(start)} and {iso(stop)}; it has {has}")


def iso(time: np.datetime64) -> str:
    """ISO 8601 in UTC to the millisecond."""
    return f"{np.datetime_as_string(time.astype('datetime64[ms]'))}Z"


def instant(text: str, name: str = "time") -> np.datetime64:
    """Parse an ISO 8601 time in UTC.

    Raises:
        Refused: it is not one.
    """
    try:
        moment: np.datetime64 = np.array([text.strip().removesuffix("Z")], "datetime64[ns]")[0]
    except ValueError:
        moment = np.array(["NaT"], "datetime64[ns]")[0]
    if np.isnat(moment):
        raise Refused(f"{name} {text!r} is not a time; write it as 2019-10-24T12:00:00")
    return moment
