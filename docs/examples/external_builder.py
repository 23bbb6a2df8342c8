"""An index built by another process, through HTTP only. Standard library; nothing of shadowswitch is imported.

    python external_builder.py http://127.0.0.1:8740 main SEARCH_INDEX object_type

The index is a sorted list of words with the ids of the records that have them: `words.json`. The process must see the
directory that the server names, so it runs on the same machine. SHADOWSWITCH_TOKEN may hold a token with the scopes
read, build and switch.
"""

import hashlib
import json
import os
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode


class Api:
    """JSON over HTTP. A refusal is an error that says what the server said."""

    def __init__(self, url):
        self.base = f"{url}/api/v1/"
        token = os.environ.get("SHADOWSWITCH_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method, path, body=None, **query):
        url = self.base + path + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "Content-Type": "application/json"}
        request = urllib.request.Request(url, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            raise SystemExit(f"{method} {path}: {problem['detail']}; {problem.get('hint', '')}") from error


def words_of(fields):
    return {word for value in fields.values() if isinstance(value, str) for word in value.lower().split()}


def read_everything(api, branch, types, shadow_id):
    """The records page by page; a heartbeat with every page, else the server gives the build up."""
    records = {}
    for kind in types:
        cursor = {}
        while cursor is not None:
            page = api.call("GET", f"branches/{branch}/records", resource_type=kind, limit=1000, **cursor)
            records.update({(kind, one["id"]): one["fields"] for one in page["records"]})
            cursor = {"cursor": page["cursor"]} if page["cursor"] else None
            api.call(
                "POST", f"shadow-index/{shadow_id}/progress", {"progress_percent": 50, "record_count": len(records)}
            )
    return records


def catch_up(api, branch, types, records, after):
    """Apply in order what was written meanwhile; returns the LSN up to which that is."""
    while True:
        page = api.call("GET", f"branches/{branch}/changes", after=after, limit=1000)
        for change in page["changes"]:
            key = (change["resource_type"], change["id"])
            if key[0] in types and change["kind"] == "put":
                records[key] = change["fields"]
            else:
                records.pop(key, None)
        after = page["next_after"]
        if after >= page["head_lsn"]:
            return after


def write_index(place, shadow_id, records, applied_lsn):
    """The index, and last the manifest that lists its files."""
    index = {}
    for (kind, id), fields in records.items():
        for word in words_of(fields):
            index.setdefault(word, []).append([kind, id])
    content = json.dumps({word: sorted(index[word]) for word in sorted(index)}).encode()
    (place / "words.json").write_bytes(content)
    files = {"words.json": {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    manifest = {"format": 1, "shadow_index_id": shadow_id, "applied_lsn": applied_lsn}
    manifest |= {"record_count": len(records), "files": files}
    (place / "build-manifest.json").write_text(json.dumps(manifest))
    return {"index_size_bytes": len(content), "record_count": len(records), "applied_lsn": applied_lsn}


def main(url, branch_name, index_type, *types):
    api, branch = Api(url), quote(branch_name, safe="")
    body = {"branch_name": branch_name, "index_type": index_type, "resource_types": list(types), "external": True}
    started = api.call("POST", "shadow-index/start", {**body, "service_name": "external_builder"})
    shadow_id, place = started["shadow_index_id"], Path(started["shadow_index_path"])
    records = read_everything(api, branch, types, shadow_id)
    after = started["start_lsn"]
    for _ in range(10):  # under writing the last changes may be newer than the index: apply them and try again
        after = catch_up(api, branch, types, records, after)
        api.call("POST", f"shadow-index/{shadow_id}/complete", write_index(place, shadow_id, records, after))
        result = api.call("POST", f"shadow-index/{shadow_id}/switch", {"reason": "built outside"})
        print(result["message"])
        if result["success"]:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
