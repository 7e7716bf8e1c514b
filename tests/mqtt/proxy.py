"""A TCP proxy on 127.0.0.1 that stalls, cuts and half-opens connections."""

from __future__ import annotations

import select
import socket
import threading

from harness import free_port


class Proxy:
    """Passes bytes to `target`; `stall` keeps them back, `cut` ends all connections, `half_open` loses them silently."""

    def __init__(self, target: int):
        self.target, self.port = target, free_port()
        self.stalled = threading.Event()
        self.closing = threading.Event()
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.lost: list[socket.socket] = []
        self.lock = threading.Lock()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(16)
        self.listener.settimeout(0.2)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                near, _ = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 2)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.append((near, far))
            threading.Thread(target=self._pass, args=(near, far), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        try:
            while not self.closing.is_set():
                if self.stalled.wait(0):
                    threading.Event().wait(0.05)
                    continue
                ready, _, _ = select.select([near, far], [], [], 0.1)
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    (far if end is near else near).sendall(data)
        except OSError:
            return
        finally:
            if near not in self.lost:
                near.close()
                far.close()

    def stall(self, on: bool) -> None:
        """Keeps all bytes back, or lets them go again."""
        (self.stalled.set if on else self.stalled.clear)()

    def cut(self) -> None:
        """Ends all connections at both ends."""
        with self.lock:
            for near, far in self.pairs:
                for end in (near, far):
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            self.pairs.clear()

    def half_open(self) -> None:
        """Ends the broker's side only; the daemon must notice by its keep-alive."""
        with self.lock:
            for near, far in self.pairs:
                self.lost.append(near)
                try:
                    far.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.pairs.clear()

    def close(self) -> None:
        self.closing.set()
        self.cut()
        self.listener.close()
        for end in self.lost:
            end.close()
