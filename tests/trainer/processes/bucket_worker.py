"""Jobs as `worker.py` runs them, with gs:// answered by `tests/object_server.py`.

TensorStore's own driver speaks to the server. gcsfs and google-cloud-storage, which
are not installed for tests, have stand-ins: a file system over the same requests, and a
client that says of every bucket what Orbax asks, whether it has folders.
"""

import json
import sys
import types

import fsspec

from tests.object_server import GoogleStore
from trainer.__main__ import compose
from trainer.config.ending import end
from trainer.config.simulated import prepare_devices


class Client:
    def get_bucket(self, name):
        return types.SimpleNamespace(hierarchical_namespace_enabled=False)


def register():
    for scheme in GoogleStore.protocol:
        fsspec.register_implementation(scheme, GoogleStore, clobber=True)
    cloud = types.ModuleType("google.cloud.storage")
    cloud.Client = Client
    sys.modules[cloud.__name__] = cloud


def work():
    register()
    jobs = [compose(words) for words in json.loads(sys.argv[1])]
    prepare_devices(jobs[0])
    import google.cloud

    google.cloud.storage = sys.modules["google.cloud.storage"]
    from trainer.run import run

    return max(run(job) for job in jobs)


if __name__ == "__main__":
    end(work, debug=True)
