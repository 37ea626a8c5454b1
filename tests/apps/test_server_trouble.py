"""mien serve where something goes wrong beneath it: no process, no room, files that change, clients that never end."""

import asyncio
import errno
import os
from multiprocessing.context import SpawnProcess

from mien.apps.jobs import Jobs, Opening
from mien.apps.measures import Measures
from mien.apps.settings import Settings


def test_a_clip_without_a_process_has_failed_and_the_next_is_read(monkeypatch, tmp_path):
    def no_process(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def two_clips():
        jobs = Jobs(Opening(model="ferplus-nano"), Settings(), Measures())
        for _ in range(2):
            with jobs.arrival() as (name, place):
                place.write_bytes(b"a clip")
                jobs.add(name, 1)
        async with asyncio.timeout(10):
            while jobs.pending:
                await asyncio.sleep(0.01)
        await jobs.close()
        return jobs.all()

    monkeypatch.setattr(SpawnProcess, "start", no_process)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    records = asyncio.run(two_clips())
    assert [record.state for record in records] == ["failed", "failed"]
    assert "no process could be started for it ([Errno 24] Too many open files)" in records[0].problem
    assert list(tmp_path.iterdir()) == []
