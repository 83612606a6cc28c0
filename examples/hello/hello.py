"""Says hello over HTTP, with the name of the replica that answered."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from metaparticle import containerize

PORT = 8080


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = "Hello from {} at {}\n".format(socket.gethostname(), self.path).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *args):
        print("answered", form % args)


@containerize(options={"name": "hello", "replicas": 3})
def main():
    print("listening on port", PORT)
    ThreadingHTTPServer(("", PORT), Hello).serve_forever()


if __name__ == "__main__":
    main()
