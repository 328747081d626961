"""A running sweep as it is seen: one view on a terminal, plain lines where the output is piped.

Promise: nothing here can stop or slow a sweep. The view is drawn by a thread that reads the sweep's
folder like anybody else, so `sftray watch` shows the same of a sweep that runs elsewhere. Price: a
look at a sweep of 1,000 trials takes 40 ms, once a second; neither ray nor torch is imported.
"""

from sftray.views.live.screen import shown as shown
from sftray.views.live.screen import watch as watch
