"""What every test runs under, set before anything heavy is imported."""

import os

# One thread per process: with several test processes more of them only wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["MPLBACKEND"] = "Agg"

from hypothesis import settings

# The same examples every time, and no folder of remembered ones.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
