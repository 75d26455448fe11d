"""The servers of the example: lines of text, an https server with a certificate of its own, datagrams."""

import http.server
import socketserver
import ssl
import sys
import threading

base, certificate, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Lines(socketserver.StreamRequestHandler):
    """Speaks first, and then gives back each line in capitals."""

    def handle(self):
        self.wfile.write(f"hello from {self.server.server_address[1] - base + 9000}\n".encode())
        for line in self.rfile:
            self.wfile.write(line.upper())


class Bank(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the bank itself\n")

    def log_message(self, *_):
        pass


class Datagrams(socketserver.BaseRequestHandler):
    def handle(self):
        data, socket = self.request
        socket.sendto(b"you said " + data, self.client_address)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


bank = http.server.ThreadingHTTPServer(("127.0.0.1", base + 203), Bank)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
# The handshake belongs into the thread of its connection.
bank.socket = context.wrap_socket(bank.socket, server_side=True, do_handshake_on_connect=False)
servers = [
    Server(("127.0.0.1", base + 201), Lines),
    Server(("127.0.0.1", base + 202), Lines),
    bank,
    socketserver.ThreadingUDPServer(("127.0.0.1", base + 204), Datagrams),
]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
