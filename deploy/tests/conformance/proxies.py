"""nginx and HAProxy with the files of deploy/proxies, on ports of their own."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request

from conftest import DEADLINE, ROOT, eventually, free_port

# Where Debian has them, whatever the user's PATH says.
PATH = os.environ["PATH"] + ":/usr/sbin"


def replaced(text, changes):
    """Each change must meet its place: a file that was edited is noticed."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in the file any more"
        text = text.replace(old, new)
    return text


class Proxy:
    """A proxy in front of `node`; `changes` are made to its file first."""

    def __init__(self, directory, node, changes):
        self.port = free_port()
        self.config = directory / self.FILE
        ports = {"127.0.0.1:80;": f"127.0.0.1:{self.port};", "bind 127.0.0.1:80\n": f"bind 127.0.0.1:{self.port}\n"}
        ports = {old: new for old, new in ports.items() if old in (ROOT / "deploy/proxies" / self.FILE).read_text()}
        text = replaced((ROOT / "deploy/proxies" / self.FILE).read_text(), changes)
        # Unless the test has led it elsewhere.
        ports |= {"127.0.0.1:8080": f"127.0.0.1:{node.port}"} if "127.0.0.1:8080" in text else {}
        self.config.write_text(replaced(text, ports))
        self.log = directory / f"{self.FILE}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.command(directory), stdout=log, stderr=log)
        eventually("the proxy reaches the node", self.is_ready)

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=DEADLINE).status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=DEADLINE)


class Nginx(Proxy):
    FILE = "nginx.conf"

    def command(self, directory):
        main = directory / "main.conf"
        places = "".join(
            f"    {place}_temp_path {directory}/{place};\n"
            for place in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main.write_text(
            f"daemon off;\npid {directory}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
            f"http {{\n    access_log off;\n{places}    include {self.config};\n}}\n"
        )
        return [shutil.which("nginx", path=PATH), "-c", str(main), "-p", str(directory), "-e", "stderr"]


class Haproxy(Proxy):
    FILE = "haproxy.cfg"

    def command(self, directory):
        return [shutil.which("haproxy", path=PATH), "-db", "-f", str(self.config)]
