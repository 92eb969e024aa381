import random
import sys

from tests.chaos import drivers, workers
from tests.chaos.outcome import table
from tests.chaos.scene import scene
from tests.chaos.trials import undisturbed

with scene(480, has_server=True) as s:
    undisturbed(s)
    print(s.seconds, s.bytes_read, s.input_bytes, flush=True)
    r = random.Random(1)
    out = []
    fns = {
        "w": lambda: workers.workers(s, ["read", "preprocess", "generate", "write"], r),
        "d": lambda: drivers.drivers(s, ["kill -9"] * 3, r),
        "s": lambda: drivers.drivers(s, ["SIGTERM", "Ctrl-C"], r),
        "t": lambda: drivers.two_drivers(s),
        "p": lambda: drivers.planning(s, r),
        "x": lambda: workers.poisoned(s, [("preprocess", "exit"), ("generate", "segfault")], r),
        "h": lambda: workers.poisoned(s, [("preprocess", "hunger")], r),
    }
    for c in sys.argv[1]:
        o = fns[c]()
        print(o.kind, o.all_faults, round(o.seconds_lost), o.share_again, flush=True)
        out.append(o)
    print(table(out))
