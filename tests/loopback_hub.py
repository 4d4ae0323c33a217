"""A Hub on 127.0.0.1: as much of its HTTP API as an upload by `huggingface_hub` and a download again need.

Real requests over a real socket; repositories live in memory. Large files go through git LFS as on the Hub before Xet
(clients set HF_HUB_DISABLE_XET=1). It is strict where the Hub is: a token for writing, a repository before a commit,
uploaded bytes that hash to their oid before a commit may name them.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKEN, USER = "hf_loopback", "tester"
LARGE = (".safetensors", ".bin", ".pt", ".model", ".parquet")


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]
    large: set[str]  # paths that came through LFS


@dataclass
class LoopbackHub:
    endpoint: str = ""
    repositories: dict[str, list[Commit]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def files(self, repository: str) -> dict[str, bytes]:
        """The files of a repository's newest commit."""
        return self.repositories[repository][-1].files

    def environment(self, home: object, token: str | None = TOKEN) -> dict[str, str]:
        """For a process that talks to this Hub, with caches of its own under `home`, logged in with `token`."""
        login = {"HF_TOKEN": token} if token else {}
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), **login}


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    """A running Hub; it stops when the block ends."""
    hub = LoopbackHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for method, pattern, answer, writes in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.reply(401, {"error": "Invalid credentials"})
                return answer(self, *match.groups())
        return self.reply(404, {"error": f"no {self.command} {path} on this Hub"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def log_message(self, *_) -> None:
        pass

    def reply(self, status: int, answer: dict | list | bytes, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, what: str) -> None:
        self.reply(404, {"error": f"{what} not found"}, {"X-Error-Code": what, "X-Error-Message": f"{what} not found"})

    def commit(self, repository: str, revision: str) -> Commit | None:
        commits = self.hub.repositories.get(repository)
        if commits is None:
            return self.missing("RepoNotFound")
        named = [commit for commit in commits if revision in ("main", commit.oid)]
        return named[-1] if named else self.missing("RevisionNotFound")

    def whoami(self) -> None:
        self.reply(200, {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or USER}/{wanted['name']}"
        if not name.startswith(f"{USER}/"):
            return self.reply(403, {"error": f"You have no rights to create a repository under {name}"})
        exists = name in self.hub.repositories
        self.hub.repositories.setdefault(name, [Commit(hashlib.sha1(name.encode()).hexdigest(), "initial", {}, set())])
        return self.reply(409 if exists else 200, {"url": f"{self.hub.endpoint}/{name}", "name": name})

    def preupload(self, repository: str, _revision: str) -> None:
        if repository not in self.hub.repositories:
            return self.missing("RepoNotFound")
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        return self.reply(200, {"files": files})

    def lfs_batch(self, _repository: str) -> None:
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{entry['oid']}", "header": {}}}
        self.reply(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.reply(422, {"error": "content does not match its oid"})
        self.hub.objects[oid] = self.body
        return self.reply(200, {})

    def validate_card(self) -> None:
        card = json.loads(self.body)["content"]
        errors = [] if card.startswith("---\n") else [{"message": "empty or missing yaml metadata"}]
        self.reply(200, {"warnings": [], "errors": errors})

    def make_commit(self, repository: str, revision: str) -> None:
        before = self.commit(repository, revision)
        if before is None:
            return None
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        files, large = dict(before.files), set(before.large)
        for value in (line["value"] for line in lines if line["key"] == "file"):
            files[value["path"]] = base64.b64decode(value["content"])
        for value in (line["value"] for line in lines if line["key"] == "lfsFile"):
            if value["oid"] not in self.hub.objects:
                return self.reply(422, {"error": f"{value['path']}: LFS object was never uploaded"})
            files[value["path"]] = self.hub.objects[value["oid"]]
            large.add(value["path"])
        for value in (line["value"] for line in lines if line["key"] == "deletedFile"):
            del files[value["path"]]
        message = lines[0]["value"]["summary"]
        oid = hashlib.sha1(self.body + before.oid.encode()).hexdigest()
        self.hub.repositories[repository].append(Commit(oid, message, files, large))
        url = f"{self.hub.endpoint}/{repository}/commit/{oid}"
        return self.reply(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def model_info(self, repository: str, revision: str | None) -> None:
        commit = self.commit(repository, revision or "main")
        if commit is not None:
            siblings = [{"rfilename": path} for path in commit.files]
            about = {"id": repository, "modelId": repository, "sha": commit.oid, "private": False, "tags": []}
            self.reply(200, {**about, "siblings": siblings, "downloads": 0, "likes": 0})

    def tree(self, repository: str, revision: str, folder: str | None) -> None:
        commit = self.commit(repository, revision)
        if commit is None:
            return None
        inside = {path: content for path, content in commit.files.items() if path.startswith(folder or "")}
        if folder and not inside:  # a new repository is empty, not missing
            return self.missing("EntryNotFound")
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in inside.items()
        ]
        return self.reply(200, entries)

    def resolve(self, repository: str, revision: str, path: str) -> None:
        commit = self.commit(repository, revision)
        if commit is None:
            return None
        about = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            return self.reply(404, {}, {**about, "X-Error-Code": "EntryNotFound"})
        content = commit.files[path]
        return self.reply(200, content, {**about, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})


REPOSITORY = r"([\w.-]+/[\w.-]+)"
# methods, path, answer, needs the token
ROUTES = [
    (("GET",), r"/api/whoami-v2", _Handler.whoami, True),
    (("POST",), r"/api/repos/create", _Handler.create, True),
    (("POST",), r"/api/validate-yaml", _Handler.validate_card, False),
    (("POST",), rf"/api/models/{REPOSITORY}/preupload/(.+)", _Handler.preupload, True),
    (("POST",), rf"/api/models/{REPOSITORY}/commit/(.+)", _Handler.make_commit, True),
    (("GET",), rf"/api/models/{REPOSITORY}/tree/([^/]+)(?:/(.*))?", _Handler.tree, False),
    (("GET",), rf"/api/models/{REPOSITORY}(?:/revision/(.+))?", _Handler.model_info, False),
    (("POST",), rf"/{REPOSITORY}\.git/info/lfs/objects/batch", _Handler.lfs_batch, True),
    (("PUT",), r"/lfs/([0-9a-f]{64})", _Handler.lfs_put, False),  # signed by its address, as on the Hub
    (("GET", "HEAD"), rf"/{REPOSITORY}/resolve/([^/]+)/(.+)", _Handler.resolve, False),
]
