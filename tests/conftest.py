"""What all tests share.

Property tests are not held to times, which say more of the machine than of the code. No test speaks TLS, and every
client of httpx would read the certificates of all authorities for it: it is given one. (None would not do: clients of
buckets refuse to start.)
"""

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
os.environ.pop("SSL_CERT_DIR", None)
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "data" / "authority.pem")
