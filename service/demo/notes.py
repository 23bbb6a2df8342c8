"""The notes of `demo --search`: short Korean texts, and judged queries.

A note is right for a query if a word of it begins with the query: a noun with its particle is, what has the noun inside
of a longer word is not.
"""

from __future__ import annotations

from collections.abc import Iterator

from shadowswitch.model.records import Put

TYPE, JUDGMENT = "note", "judgment"
NOUNS = (
    "사용자", "권한", "문서", "검색", "색인", "배포", "서버", "화면", "설정", "로그인", "파일", "목록",
    "주문", "결제", "회의", "일정", "보고서", "메일", "알림", "계정", "접근", "기록", "오류", "시험",
)  # fmt: skip
WHOLE = ("오늘 {} 하나를 새로 만들었다", "다음 주까지 {} 정리를 끝낸다")
WITH_PARTICLE = ("어제부터 {}에서 문제가 생겼다", "이번에는 {}만 먼저 바꾸기로 했다")
INSIDE = ("비{0} 항목과 재{0} 항목은 따로 둔다",)


def notes() -> Iterator[Put]:
    """Every note, by noun and kind."""
    for number, noun in enumerate(NOUNS):
        for kind, texts in (("whole", WHOLE), ("particle", WITH_PARTICLE), ("inside", INSIDE)):
            for which, text in enumerate(texts):
                yield Put(TYPE, f"{kind}-{number}-{which}", {"text": text.format(noun)})


def judgments() -> Iterator[Put]:
    """For each noun the notes that are right: those with the noun alone a little more."""
    for number, noun in enumerate(NOUNS):
        for kind, texts, grade in (("whole", WHOLE, 3), ("particle", WITH_PARTICLE, 3)):
            for which in range(len(texts)):
                id = f"{kind}-{number}-{which}"
                fields = {"query": noun, "resource_type": TYPE, "id": id, "grade": grade, "pinned": False}
                yield Put(JUDGMENT, id, fields)
