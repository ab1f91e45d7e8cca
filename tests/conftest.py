"""What all tests share.

Property tests are not held to times, which say more of the machine than of the code. No test speaks TLS, and every
client of httpx would read the certificates of all authorities for it: they are left where none is looked for.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull
