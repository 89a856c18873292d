"""Starts moto's S3 on a free port of 127.0.0.1 and prints it.

Requests are handled one at a time: moto checks a condition and stores the object without a lock in between.
"""

import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

one_at_a_time = threading.Lock()
application = DomainDispatcherApplication(create_backend_app)


def serialised(environ, start_response):
    with one_at_a_time:
        return list(application(environ, start_response))


server = make_server("127.0.0.1", 0, serialised, threaded=True)
print(f"listening on {server.port}", flush=True)
server.serve_forever()
