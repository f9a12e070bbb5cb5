import functools
import os
import threading
import time

import pytest

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.evaluate import evaluation
from speccascade.report import report
from speccascade.training import loop
from speccascade.workdir import bucket, claim, results
from tests import tiny_pair
from tests.training import tiny as training
from tests.workdir.bucket import install

WORKDIR = "gs://bucket/runs/w"


LOCK = "/bucket/runs/w/.lock"


@pytest.fixture(params=["creates", "overwrites"])
def made(monkeypatch, request):
    if request.param == "overwrites":
        monkeypatch.setattr(bucket, "CREATES", ())
    for name, seconds in {"RENEWS": 0.05, "EXPIRES": 0.4, "SETTLES": 0.1}.items():
        monkeypatch.setattr(bucket, name, seconds)
    return install(monkeypatch)


def names(made):
    """What lies in the workdir, but for the last lock where nobody has it."""
    return {
        path.removeprefix("/bucket/runs/w/")
        for path, file in made.store.items()
        if not path.startswith(LOCK + ".") or file.getvalue()
    }


def lock_of(made, number):
    """The path of a lock: of the `number`-th where locks are numbered."""
    return f"{LOCK}.{number:06d}" if bucket.CREATES else LOCK


def test_rows_are_added_and_read_back(made):
    store = results.Results(WORKDIR)
    assert store.rows == {} and results.read(WORKDIR) == []
    for key in "abc":
        store.append({"key": key})
    assert [row["key"] for row in results.read(WORKDIR)] == ["a", "b", "c"]
    again = results.Results(WORKDIR)
    assert set(again.rows) == {"a", "b", "c"}
    again.append({"key": "d"})
    assert made.cat("/bucket/runs/w/results.jsonl").count(b"\n") == 4
    assert names(made) == {"results.jsonl"}


def test_a_line_cut_short_is_dropped_with_the_next_row(made):
    made.pipe("/bucket/runs/w/results.jsonl", b'{"key": "a"}\n{"key": "b", "qua')
    store = results.Results(WORKDIR)
    assert set(store.rows) == {"a"}
    store.append({"key": "c"})
    assert [row["key"] for row in results.read(WORKDIR)] == ["a", "c"]


def test_a_failing_write_leaves_the_rows_so_far(made):
    store = results.Results(WORKDIR)
    store.append({"key": "a"})
    made.full = True
    with pytest.raises(UserError) as caught:
        store.append({"key": "b"})
    assert str(caught.value) == (
        "cannot write to gs://bucket/runs/w/results.jsonl: 429: quota exceeded; what was there is "
        "kept, see to it and start again"
    )
    assert set(store.rows) == {"a"}
    made.full = False
    store.append({"key": "c"})
    assert [row["key"] for row in results.read(WORKDIR)] == ["a", "c"]


def test_a_renewed_lock_is_refused_and_a_free_one_taken(made):
    with bucket.claim(WORKDIR) as check:
        with pytest.raises(UserError, match="another process works in gs://bucket/runs/w; wait"):
            with bucket.claim(WORKDIR):
                pass
        check()
        assert len(names(made)) == 1 and names(made).pop().startswith(".lock")
    assert not names(made)
    with claim.claim(WORKDIR):
        pass


def test_the_lock_of_a_process_that_died_expires(made):
    made.pipe(lock_of(made, 7), b"host 1 abc 7")
    began = time.monotonic()
    with bucket.claim(WORKDIR) as check:
        assert time.monotonic() - began >= bucket.EXPIRES
        check()
    assert not names(made)


def test_of_two_that_claim_at_once_one_gives_way(made):
    outcomes = []

    def claim():
        try:
            with bucket.claim(WORKDIR):
                time.sleep(0.5)
            outcomes.append("held")
        except UserError:
            outcomes.append("refused")

    threads = [threading.Thread(target=claim) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]


@pytest.mark.parametrize("expired", [False, True])
def test_a_numbered_lock_is_had_once_however_slow_its_writers(made, monkeypatch, expired):
    """Of many that find it free, or expired, at once, each stopped anywhere on its way to it."""
    if not bucket.CREATES:
        pytest.skip("a store that overwrites without asking cannot promise this")
    if expired:
        made.pipe(lock_of(made, 3), b"host 1 abc 7")
    holders, most, refused, one = [], [], [], threading.Lock()
    # Seconds before creating it, some of them longer than a lock lives.
    wait = {"a": 0, "b": 0.3, "c": 1.0, "d": 0.1, "e": 0.6, "f": 0.02}
    pipe_file = made.pipe_file

    def late(path, value, mode="overwrite", **options):
        if mode == "create":
            time.sleep(wait.get(threading.current_thread().name, 0))
        return pipe_file(path, value, mode, **options)

    monkeypatch.setattr(made, "pipe_file", late)

    def claim():
        try:
            with bucket.claim(WORKDIR) as check:
                with one:
                    holders.append(1)
                    most.append(len(holders))
                time.sleep(0.1)
                check()
                with one:
                    holders.pop()
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=claim, name=name) for name in wait]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) + len(refused) == len(wait)
    assert all("another process works in" in text for text in refused)
    assert not names(made)
    with bucket.claim(WORKDIR) as check:
        check()


def test_who_slept_beyond_its_lock_writes_nothing_after_it(made, monkeypatch):
    monkeypatch.setattr(bucket, "RENEWS", 3600.0)  # its thread sleeps, too
    with bucket.claim(WORKDIR) as check:
        store = results.Results(WORKDIR, check)
        monkeypatch.setattr(bucket, "RENEWS", 0.05)
        with bucket.claim(WORKDIR) as others:
            results.Results(WORKDIR, others).append({"key": "b"})
            with pytest.raises(UserError, match="another process has taken over"):
                store.append({"key": "a"})
    assert [row["key"] for row in results.read(WORKDIR)] == ["b"]


def test_a_lock_that_was_taken_over_stops_the_rows(made):
    with bucket.claim(WORKDIR) as check:
        store = results.Results(WORKDIR, check)
        store.append({"key": "a"})
        made.pipe(lock_of(made, 2), b"host 2 def 0")
        time.sleep(4 * bucket.RENEWS)
        with pytest.raises(UserError, match="another process has taken over gs://bucket/runs/w"):
            store.append({"key": "b"})
    assert [row["key"] for row in results.read(WORKDIR)] == ["a"]
    assert made.cat(lock_of(made, 2)) == b"host 2 def 0"


def test_without_a_client_package_one_line_says_so(monkeypatch):
    def missing(*_):
        raise ImportError("No module named 'gcsfs'")

    from etils.epath import backend

    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", missing)
    trains = functools.partial(loop.train, training.get_config())
    for use in (results.read, lambda w: claim.claim(w).__enter__(), report, trains):
        with pytest.raises(UserError, match="gs://bucket/runs/w needs a package .*gcsfs"):
            use(WORKDIR)


def test_a_sweep_in_a_bucket(made, tmp_path):
    pairs.export(tiny_pair.make(), tmp_path / "pair", {})
    config = tiny_pair.get_config(str(tmp_path / "pair"))
    config.evaluate.settings = ({"method": "autoregressive_expert"},)
    config.evaluate.timing = {"num_examples": 1, "trials": 1}
    assert evaluation.evaluate(config, WORKDIR).measured == 4
    named = [row["answers"] for row in results.read(WORKDIR) if "answers" in row]
    kept = {f"answers/{name}.jsonl.gz" for name in named}
    assert names(made) == {"results.jsonl", "config.json", *kept}
    assert evaluation.evaluate(config, WORKDIR).measured == 0
    local = tmp_path / "w"
    evaluation.evaluate(config, str(local))
    assert [row["key"] for row in results.read(local)] == [r["key"] for r in results.read(WORKDIR)]
    text, paths = report(WORKDIR)
    assert "| autoregressive_expert | " in text
    for path in paths:
        name = path.removeprefix(WORKDIR + "/report/")
        assert made.cat("/bucket/runs/w/report/" + name), name
    assert not os.path.exists("gs:")
