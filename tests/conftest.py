"""What every test runs under."""

import os

from hypothesis import settings

# Set before torch and numpy are imported. One thread per process: several test processes with
# more of them only wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["MPLBACKEND"] = "Agg"

# The same examples every time, and no folder of earlier ones.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
