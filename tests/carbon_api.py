# SPDX-License-Identifier: Apache-2.0
"""A carbon API on loopback that answers what it is told to and keeps what it was asked."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from loopback_api import Answer, LoopbackApi, LoopbackHandler, served


@dataclass(frozen=True)
class Asked:
    path: str
    query: dict[str, str]
    headers: dict[str, str]


class Api(LoopbackApi):
    """`answers` by path; `any` for the rest. A list is used up, down to its last one."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.any = Answer(status=404)
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[Asked] = []

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def next(self, path: str) -> Answer:
        found = self.answers.get(path, self.any)
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


class _Handler(LoopbackHandler):
    server: Api

    def do_GET(self) -> None:  # noqa: N802
        api, parts = self.server, urlsplit(self.path)
        api.asked.append(Asked(parts.path, dict(parse_qsl(parts.query)), self.lower_headers()))
        self.tell(api.next(parts.path))


def serving() -> AbstractContextManager[Api]:
    return served(Api())
