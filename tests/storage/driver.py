"""A driver of one study, led by the lines of its standard input: what it was told, it answers in one line.

write: add an event. open: begin a transaction, and leave it open with an event in it. commit: end it. regain: take the
lock again.
"""

import sys

from sqlalchemy import insert

from deepmine_auto.errors import DeepmineError
from deepmine_auto.storage import tables
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store, now


class Driver:
    def __init__(self, place: str, study: str) -> None:
        self.place, self.fence = place_of(place), Fence()
        self.store = Store(self.place.open_writer(self.fence))
        self.study = self.store.study(study)
        self.connection = None

    def work(self) -> None:
        with self.place.hold(self.study.name) as self.fence.hold:
            self.fence.study_id, self.fence.epoch = self.study.id, self.store.begin_session(self.study.id)
            print("held", flush=True)
            for line in sys.stdin:
                print(self.tried(line.strip()), flush=True)

    def tried(self, what: str) -> str:
        try:
            getattr(self, what)()
        except DeepmineError as error:
            return type(error).__name__
        return what

    def write(self) -> None:
        self.store.add_event(self.study.id, "kind", "text")

    def open(self) -> None:
        self.connection = self.store.engine.connect()
        row = {"study_id": self.study.id, "id": 999, "at": now(), "kind": "kind", "text": "open"}
        self.connection.execute(insert(tables.events).values(**row))

    def commit(self) -> None:
        self.connection.commit()
        self.connection.close()

    def regain(self) -> None:
        self.fence.regain()


if __name__ == "__main__":
    Driver(*sys.argv[1:]).work()
