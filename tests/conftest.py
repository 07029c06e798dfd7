import os
import sys
from pathlib import Path

# two workers with two BLAS threads each get in each other's way, by an order of magnitude for small matrices
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

sys.path.insert(0, str(Path(__file__).parent))
