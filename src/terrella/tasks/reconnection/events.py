"""Magnetotail reconnection events with their lobe field and current-sheet density.

Rogers et al. 2023, doi:10.1029/2022JA030577: 23 electron diffusion region candidates seen by MMS in
the magnetotail, each with the B0 (nT) and n0 (cm-3) that normalise its data. Letters K, M and N are
not in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from terrella.types import Refused

if TYPE_CHECKING:
    import numpy as np

DOI = "10.1029/2022JA030577"


@dataclass(frozen=True)
class Event:
    """One event of the table.

    Attributes:
        start, stop: UTC, ISO 8601.
        b0: lobe magnetic field, nT.
        n0: current-sheet density, cm-3.
    """

    start: str
    stop: str
    b0: float
    n0: float

    @property
    def span(self) -> tuple[np.datetime64, np.datetime64]:
        """[start, stop) as datetime64[ns]."""
        import numpy as np

        return np.datetime64(self.start, "ns"), np.datetime64(self.stop, "ns")


# fmt: off
EVENTS = {
    "A": Event("2017-05-28T03:58:30", "2017-05-28T03:59:15", 21.27865148, 0.13838144),
    "B": Event("2017-07-03T05:27:08", "2017-07-03T05:27:30", 26.53054016, 1.0288908),
    "C": Event("2017-07-06T15:35:10", "2017-07-06T15:36:00", 16.14916568, 0.4389502),
    "D": Event("2017-07-06T15:46:35", "2017-07-06T15:46:52", 19.05825971, 0.19944784),
    "E": Event("2017-07-11T22:33:30", "2017-07-11T22:34:15", 7.805345825, 0.19892825),
    "F": Event("2017-07-17T07:48:45", "2017-07-17T07:49:30", 16.38363369, 0.17318012),
    "G": Event("2017-07-26T00:04:25", "2017-07-26T00:04:35", 17.54366084, 0.20273407),
    "H": Event("2017-07-26T07:00:00", "2017-07-26T07:00:45", 22.2842775, 0.16811092),
    "I": Event("2017-07-26T07:28:30", "2017-07-26T07:29:15", 15.41015406, 0.11836687),
    "J": Event("2017-08-06T05:13:30", "2017-08-06T05:14:00", 14.32471067, 0.38465217),
    "L": Event("2017-08-23T17:53:30", "2017-08-23T17:54:15", 17.15643793, 1.3245863),
    "O": Event("2018-08-27T11:41:00", "2018-08-27T11:41:45", 15.75670785, 0.21070065),
    "P": Event("2018-08-27T12:15:30", "2018-08-27T12:16:00", 16.11432974, 0.15921502),
    "Q": Event("2018-09-10T17:14:45", "2018-09-10T17:15:30", 29.09204865, 2.759707),
    "R": Event("2018-09-11T00:00:45", "2018-09-11T00:01:15", 26.14315926, 0.41606516),
    "S": Event("2019-07-25T21:41:10", "2019-07-25T21:41:55", 10.23943403, 0.20430537),
    "T": Event("2019-08-31T12:03:00", "2019-08-31T12:03:30", 32.36794703, 0.71044284),
    "U": Event("2019-09-06T04:37:30", "2019-09-06T04:41:00", 13.37737541, 0.12632449),
    "V": Event("2020-08-02T16:58:20", "2020-08-02T16:59:30", 14.44350423, 0.2835195),
    "W": Event("2020-08-02T17:10:00", "2020-08-02T17:11:20", 13.92892911, 0.2835195),
    "X": Event("2020-08-03T01:05:40", "2020-08-03T01:06:20", 20.14111812, 0.18773806),
    "Y": Event("2020-08-05T14:18:30", "2020-08-05T14:21:00", 9.251656107, 0.12356131),
    "Z": Event("2020-08-29T09:55:00", "2020-08-29T09:58:00", 18.31873051, 0.28314748),
}
# fmt: on


def chosen(letters: str) -> dict[str, Event]:
    """Events by their letters.

    Args:
        letters: as typed: ``A``, ``A,C,D``, ``acd`` or ``all``.

    Raises:
        Refused: a letter that the table does not have.
    """
    wanted = letters.upper().replace(",", " ").split()
    if wanted == ["ALL"]:
        return dict(EVENTS)
    if len(wanted) == 1 and len(wanted[0]) > 1:
        wanted = list(wanted[0])
    for letter in wanted:
        if letter not in EVENTS:
            raise Refused(
                f"--event {letter}: no such event in the table (doi:{DOI}); "
                f"there are {', '.join(EVENTS)}"
            )
    return {letter: EVENTS[letter] for letter in dict.fromkeys(wanted)}
