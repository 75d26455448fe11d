"""Says something over TCP or UDP and prints the answers: ask.py tcp|udp PORT TEXT [FROM]"""

import socket
import sys

kind, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
client = socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
client.settimeout(10)
if len(sys.argv) > 4:
    client.bind((sys.argv[4], 0))
client.connect(("127.0.0.1", port))
client.sendall(text + (b"\n" if kind == "tcp" else b""))
if kind == "udp":
    print(client.recv(65535).decode())
else:
    client.shutdown(socket.SHUT_WR)
    try:
        while piece := client.recv(65535):
            sys.stdout.write(piece.decode())
    except ConnectionResetError:
        pass
