"""Small servers that send pictures as network cameras do: by HTTP (motion JPEG) and by RTSP (RTP/JPEG, RFC 2435)."""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

MTU = 1400
CLOCK = 90_000  # ticks of RTP a second
SDP = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=test", "c=IN IP4 0.0.0.0", "t=0 0", "m=video 0 RTP/AVP 26", "a=control:1"]


def as_jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))[1].tobytes()


class MotionJpeg(BaseHTTPRequestHandler):
    """Sends the frames of its server, then closes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for image in self.server.frames:  # type: ignore[attr-defined]
            jpeg = as_jpeg(image)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(self.server.pause)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


def _packets(jpeg: bytes, number: int, stamp: int) -> Iterator[bytes]:
    """The RTP packets of a baseline JPEG with 4:2:0 colours and the standard Huffman tables."""
    tables, at = b"", 2
    while True:
        marker, length = struct.unpack(">HH", jpeg[at : at + 4])
        body = jpeg[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xFFDB:  # tables of 64 bytes, each behind its number
            tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
        elif marker == 0xFFC0:
            height, width = struct.unpack(">HH", body[1:5])
        elif marker == 0xFFDA:
            break
    scan = jpeg[at:-2]
    for offset in range(0, len(scan), MTU):
        last = offset + MTU >= len(scan)
        header = struct.pack(">BBHII", 0x80, 26 | 0x80 * last, number & 0xFFFF, stamp, 1)
        header += struct.pack(">II", offset, 1 << 24 | 255 << 16 | width // 8 << 8 | height // 8)
        if not offset:
            header += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield header + scan[offset : offset + MTU]
        number += 1


class Rtsp(socketserver.StreamRequestHandler):
    """Answers a player, and after PLAY sends the frames of its server among the answers of the connection, by TCP."""

    def handle(self) -> None:
        while request := self.rfile.readline().decode().split():
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body, more = "", {"CSeq": headers["cseq"]}
            if request[0] == "OPTIONS":
                more["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
            elif request[0] == "DESCRIBE":
                body, more["Content-Type"] = "".join(f"{line}\r\n" for line in SDP), "application/sdp"
                more["Content-Length"] = str(len(body))
            elif request[0] == "SETUP":
                tcp = "TCP" in headers["transport"]
                more |= {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": "1"} if tcp else {}
                status = "200 OK" if tcp else "461 Unsupported Transport"
                self._answer(status, more)
                continue
            self._answer("200 OK", more | {"Session": "1"}, body)
            if request[0] == "PLAY":
                self._play()
                return

    def _answer(self, status: str, headers: dict[str, str], body: str = "") -> None:
        lines = [f"RTSP/1.0 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", body]
        self.wfile.write("\r\n".join(lines).encode())

    def _play(self) -> None:
        sent = 0
        for index, image in enumerate(self.server.frames):  # type: ignore[attr-defined]
            stamp = round(index * self.server.pause * CLOCK)  # type: ignore[attr-defined]
            for packet in _packets(as_jpeg(image), sent, stamp):
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
                sent += 1
            time.sleep(self.server.pause)  # type: ignore[attr-defined]


@contextmanager
def network_camera(scheme: str, frames: Sequence[np.ndarray], pause: float = 0.02) -> Iterator[str]:
    """The host and port of a server by 'http' or 'rtsp' that sends these frames, RGB with sides that 16 divides."""
    kind, handler = (ThreadingHTTPServer, MotionJpeg) if scheme == "http" else (socketserver.ThreadingTCPServer, Rtsp)
    with kind(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.frames, server.pause = frames, pause  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Folder(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """The address of a folder's files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Folder, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
