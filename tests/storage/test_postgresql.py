"""Studies on a server that is killed, cut off, crowded or asks for a password."""

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import traceback
from contextlib import closing
from pathlib import Path

import cloudpickle
import optuna
import pytest
from fakes import Desk
from optuna.trial import TrialState
from postgres import ENCODED, PASSWORD
from proxy import Proxy
from sqlalchemy import text
from typed import command, search_args

from deepmine_auto.errors import BadInput, DatabaseAway
from deepmine_auto.storage import VARIABLE, tables
from deepmine_auto.storage.away import is_away, probe
from deepmine_auto.storage.engine import Fence, LockLost
from deepmine_auto.storage.place import place_of, trusted
from deepmine_auto.storage.postgresql import CONNECTIONS
from deepmine_auto.storage.store import Store


@pytest.fixture
def database(postgres):
    """The name of an empty database."""
    with postgres.database() as name:
        yield name


@pytest.fixture
def desk(tmp_path, postgres, database):
    return Desk(tmp_path, place=place_of(postgres.url(database)))


# -- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_was_killed_is_away_and_the_next_write_after_its_start_works(desk, postgres):
    study = desk.begin()
    with desk.place.hold("study") as hold:
        ledger = desk.ledger(study)
        desk.fence.hold = hold
        for at in range(2):
            desk.store.add_event(study.id, "kind", f"before {at}")
            postgres.kill()
            try:
                with pytest.raises(DatabaseAway, match=r"cannot be used: .*\. Look whether it runs") as caught:
                    desk.store.add_event(study.id, "kind", "lost")
                assert is_away(caught.value)
                assert not probe(desk.store.storage)
                with pytest.raises(DatabaseAway, match=r"cannot be taken: .*\. Look whether the database runs"):
                    hold.regain()
            finally:
                postgres.start()
            assert probe(desk.store.storage)
            with pytest.raises(LockLost, match="The lock of the study 'study' was lost"):
                desk.store.add_event(study.id, "kind", "too early")
            hold.regain()
            desk.store.add_event(study.id, "kind", f"after {at}")
        told = [row["text"] for row in desk.store.rows(tables.events, study.id)]
        assert told == ["before 0", "after 0", "before 1", "after 1"]
        assert desk.store.sessions(study.id)[-1]["epoch"] == ledger.epoch


def test_a_connection_that_was_cut_is_replaced_before_it_is_used(desk, postgres, database):
    study = desk.begin()
    for at in range(3):
        postgres.terminate_backends(database)
        desk.store.storage.set_study_user_attr(study.id, "key", at)
        assert desk.store.storage.get_study_user_attrs(study.id)["key"] == at


def test_a_server_that_is_not_there_is_told_in_a_sentence(postgres):
    gone = place_of("postgresql://tester@127.0.0.1:1/studies")
    for use in (gone.names, gone.open_reader, gone.look, lambda: gone.open_writer(Fence())):
        with pytest.raises(
            DatabaseAway, match=r"tester@127\.0\.0\.1:1/studies cannot be .*refused.*Look whether it runs"
        ):
            use()
    missing = place_of(postgres.url("nowhere"))
    with pytest.raises(DatabaseAway, match=r'cannot be read: .*database "nowhere" does not exist\. Look .*name'):
        missing.names()


def test_a_database_without_a_study_is_read_as_such(postgres, database):
    with pytest.raises(BadInput, match=r"holds no study\. Name the database with --storage, or begin with a search"):
        place_of(postgres.url(database)).open_reader()


def test_a_user_without_the_right_to_make_tables_is_told_in_a_sentence(postgres, database):
    postgres.run(f"ALTER DATABASE {database} OWNER TO postgres")
    place = place_of(postgres.url(database))
    for use in (place.look, lambda: place.open_writer(Fence())):
        with pytest.raises(BadInput, match=r"permission denied for schema public\. Ask for the right to make tables"):
            use()


# -- acknowledgements that are lost ------------------------------------------------------------------------------------

REPORT = {"seq": 1, "kind": "trial", "number": 0, "attempt": 1, "step": 1, "share": 1, "value": 0.5, "metrics": {}}
REPORT |= {"checkpoint": None, "best_checkpoint": None, "seconds": 1.0}
EVENT = {"id": 1, "at": "now", "kind": "kind", "trial": None, "text": "text"}


def test_a_write_whose_acknowledgement_was_lost_is_done_again_and_changes_nothing(tmp_path, postgres, database):
    proxy = Proxy(postgres.port)
    desk = Desk(tmp_path, place=trusted(postgres.tcp(database, password=True, port=proxy.port)))
    study, store = desk.begin(), desk.store
    trial = optuna.trial.create_trial(state=TrialState.RUNNING, params={}, distributions={})
    first = store.add_trial(study.id, 0, trial)
    writes = [
        lambda: store.add_trial(study.id, 1, trial),
        lambda: store.add_report(study.id, REPORT, 1, 2.0),
        lambda: store.add(tables.events, study.id, EVENT),
        lambda: store.show_value(first._trial_id, 1, 0.5),
        lambda: store.set_result(study.id, {"winner": 0}),
        lambda: store.storage.set_trial_state_values(first._trial_id, TrialState.COMPLETE, [0.5]),
        lambda: store.finish_trial(first._trial_id, "COMPLETE", [0.5], {}, {}),
    ]
    for at, write in enumerate(writes[:-1]):
        proxy.lossy = True
        with pytest.raises(DatabaseAway, match=r"cannot be used: ") as caught:
            until_lost(write, proxy, at)
        assert is_away(caught.value)
        if at < 5:  # Optuna itself refuses to end a trial twice; `finish_trial` does not
            write()
    writes[-1]()
    trials = Store(place_of(postgres.url(database)).open_reader()).trials(study.id)
    assert [(each.number, each.state.name, each.values) for each in trials] == [
        (0, "COMPLETE", [0.5]),
        (1, "RUNNING", None),
    ]
    assert len(store.rows(tables.reports, study.id)) == len(store.rows(tables.events, study.id)) == 1
    assert proxy.lost == 6
    proxy.close()


def until_lost(write, proxy, before):
    """Do a write of several transactions until one's acknowledgement is lost."""
    write()
    assert proxy.lost > before


# -- crowded -----------------------------------------------------------------------------------------------------------


def test_a_driver_takes_three_connections_and_one_for_its_lock(desk, postgres, database):
    study = desk.begin()
    desk.store.engine.dispose()
    postgres.run(f"ALTER DATABASE {database} CONNECTION LIMIT {CONNECTIONS + 1}")
    with desk.place.hold("study") as hold:
        desk.ledger(study)
        desk.fence.hold = hold
        raised = []

        def write(at):
            try:
                for each in range(5):
                    desk.store.storage.set_study_user_attr(study.id, f"{at}-{each}", 1)
            except Exception as error:
                raised.append(error)

        threads = [threading.Thread(target=write, args=(at,)) for at in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert raised == []
        count = postgres.rows(f"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{database}'")
        assert count == [(CONNECTIONS + 1,)]


def test_a_driver_gives_a_dead_server_and_a_dead_driver_time_but_not_for_ever(desk):
    with desk.store.engine.connect() as connection:
        names = ("lock_timeout", "idle_in_transaction_session_timeout")
        assert [connection.execute(text(f"SHOW {name}")).scalar() for name in names] == ["30s", "1min"]
        told = connection.connection.driver_connection.info.get_parameters()
        assert (told["keepalives_idle"], told["connect_timeout"], told["tcp_user_timeout"]) == ("30", "10", "30000")


def test_a_url_may_ask_for_other_patience_and_the_rest_is_ours(postgres, database):
    place = place_of(f"{postgres.url(database)}&connect_timeout=3&keepalives_idle=7")
    with closing(place.connect()) as connection:
        told = connection.info.get_parameters()
    assert (told["connect_timeout"], told["keepalives_idle"], told["keepalives_interval"]) == ("3", "7", "10")


def test_the_server_looks_whether_a_silent_driver_is_still_there(postgres, database):
    with closing(trusted(postgres.tcp(database, password=True)).connect()) as connection:
        names = ("idle", "interval", "count")
        shown = [connection.execute(f"SHOW tcp_keepalives_{name}").fetchone()[0] for name in names]
    assert [each.removesuffix("s") for each in shown] == ["30", "10", "3"]


# -- the password ------------------------------------------------------------------------------------------------------

WORK = """
import sys, time
from pathlib import Path
from fakes import Desk
from deepmine_auto.storage.place import place_of
desk = Desk(Path(sys.argv[1]), place=place_of(sys.argv[2]))
study = desk.begin()
with desk.place.hold("study") as hold:
    desk.work(study)
    print("worked", flush=True)
    sys.stdin.read()
"""


def is_secret(shown):
    """Whether the password can be seen in bytes or text, plainly or as a URL has it."""
    plain = shown if isinstance(shown, bytes) else str(shown).encode()
    return b"canary" in plain or PASSWORD.encode() in plain or ENCODED.encode() in plain


@pytest.mark.slow
def test_the_password_is_written_nowhere(tmp_path, postgres, database, monkeypatch):
    """A driver that knows it from its environment works a study off, and all that it leaves is looked through."""
    monkeypatch.setenv(VARIABLE, postgres.tcp(database, password=True))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    typed = postgres.tcp(database, password=False)
    command = [sys.executable, "-c", WORK, str(tmp_path), typed]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as driver:
        assert driver.stdout.readline() == b"worked\n", driver.communicate()[1]
        lines = [each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline")]
        activity = postgres.rows("SELECT * FROM pg_stat_activity")
        out, err = driver.communicate()
    assert any(typed.encode() in each for each in lines)
    assert not any(map(is_secret, [*lines, activity, out, err]))
    assert not any(is_secret(each.read_bytes()) for each in tmp_path.rglob("*") if each.is_file())
    names = [name for (name,) in postgres.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database)]
    assert "deepmine_reports" in names
    assert not any(is_secret(postgres.rows(f"SELECT * FROM {each}", database)) for each in names)
    assert not is_secret((postgres.folder / "log").read_bytes())


def test_the_password_is_in_no_log_pickle_or_text_of_a_storage(tmp_path, postgres, database, caplog):
    caplog.set_level(logging.DEBUG)
    place = trusted(postgres.tcp(database, password=True))
    with place.hold("study") as hold:
        desk = Desk(tmp_path, place=place)
        desk.begin()
        storage = desk.store.storage
        for sent in (pickle.dumps(storage), cloudpickle.dumps(storage), pickle.dumps(place), cloudpickle.dumps(place)):
            assert not is_secret(sent)
        shown = [
            storage.url,
            storage.engine.url,
            repr(storage.engine),
            vars(storage),
            vars(storage.engine.pool),
            vars(hold),
        ]
        assert not any(map(is_secret, [*shown, *caplog.messages, place, repr(place)]))


@pytest.mark.parametrize("wrong", ["password", "port", "database"])
def test_the_password_is_in_no_error(postgres, database, wrong):
    url = postgres.tcp(database, password=True)
    url = {
        "password": url.replace("canary", "canary2"),
        "port": url.replace(f":{postgres.port}", ":1"),
        "database": url.replace(database, "nowhere"),
    }[wrong]
    place = trusted(url)
    for use in (place.names, lambda: place.open_writer(Fence()), lambda: place.hold("study").__enter__()):
        with pytest.raises(DatabaseAway, match=r"cannot be (read|opened|taken)") as caught:
            use()
        assert not is_secret("".join(traceback.format_exception(caught.value)))


def test_a_password_of_all_that_is_odd_reaches_the_server(postgres, database):
    assert trusted(postgres.tcp(database, password=True)).names() == set()
    with pytest.raises(DatabaseAway, match="no password supplied"):
        place_of(postgres.tcp(database, password=False)).names()


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_on_a_server_is_searched_and_seen_by_the_commands(tmp_path, postgres, database):
    """The password is in the environment; what is typed, printed and proposed has none."""
    typed = postgres.tcp(database, password=False)
    told = {"env": {**os.environ, VARIABLE: postgres.tcp(database, password=True)}, "folder": tmp_path}
    searched = command(*search_args(tmp_path, "--storage", typed, "--json"), **told)
    assert searched.returncode == 0, searched.stderr
    found = json.loads(searched.stdout)
    assert (found["storage"], found["trials"]) == (typed, 2)
    assert Path(found["result"]["bundle"]) == tmp_path / "deepmine-auto" / "small" / "bundle"
    seen = command("trials", "small", "--json", **told)
    assert [each["state"] for each in json.loads(seen.stdout)["trials"]] == ["complete"] * 2
    shown = command("best", "small", "--storage", typed, **told)
    assert "deepmine-auto trials small\n" in shown.stdout, "the environment says the rest"
    refused = command("best", "--storage", postgres.tcp(database, password=True), **told)
    assert refused.returncode == 2
    away = command("resume", "small", "--storage", "postgresql://me@127.0.0.1:1/studies", **told)
    assert (away.returncode, away.stdout) == (6, "")
    assert away.stderr.startswith("The study database postgresql://me@127.0.0.1:1/studies cannot be read: ")
    assert not any(map(is_secret, [searched.stdout, searched.stderr, seen.stdout, shown.stdout, refused.stderr]))
