"""The sweep's event log: `journal` appends and replays, `events` are its lines, locally one file
(`local_journal`), on a URI numbered objects (`bucket_journal`)."""

from sftray.storage.journal.event_types import Event
from sftray.storage.journal.journal import Journal, held, read_events, reader

__all__ = ["Event", "Journal", "held", "read_events", "reader"]
