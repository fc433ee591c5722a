"""An origin that answers each request with what h11 read of it."""

import base64
import json
import socketserver
import sys
from urllib.parse import unquote_to_bytes

import h11


class Origin(socketserver.BaseRequestHandler):
    def handle(self):
        self.conn = h11.Connection(h11.SERVER)
        while self.exchange():
            self.conn.start_next_cycle()

    def event(self):
        while True:
            event = self.conn.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self.conn.they_are_waiting_for_100_continue:
                go = h11.InformationalResponse(status_code=100, headers=[])
                self.request.sendall(self.conn.send(go))
            self.conn.receive_data(self.request.recv(65536))

    def exchange(self):
        """Reads a request and answers it; says whether another may follow."""
        request = self.event()
        if not isinstance(request, h11.Request):
            return False
        body = b""
        while True:
            event = self.event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        path = unquote_to_bytes(request.target.split(b"?", 1)[0])
        answer = json.dumps({
            "method": request.method.decode("ascii"),
            "path": base64.b64encode(path).decode("ascii"),
            "body": base64.b64encode(body).decode("ascii"),
        }).encode("ascii")
        head = h11.Response(status_code=200, headers=[("Content-Length", str(len(answer)))])
        for part in (head, h11.Data(data=answer), h11.EndOfMessage()):
            self.request.sendall(self.conn.send(part))
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Origin).serve_forever()
