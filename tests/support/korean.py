"""Sixty Korean records and 24 judged queries. A record is right for a query if a word of it begins with the query.

For each word one record has it in quotation marks, which are part of a word for the tokenizer `ascii`, and one has it
with a particle. Twelve short records have the words inside of longer ones, where a search by characters finds them.
"""

from __future__ import annotations

from shadowswitch import Put

WORDS = (
    "기차", "사과", "학교", "시장", "가방", "나무", "바다", "김치", "병원", "은행", "회사", "공원",
    "시간", "전화", "영화", "음식", "신문", "극장", "식당", "편지", "의자", "우산", "노래", "마을",
)  # fmt: skip
QUOTED = (
    "어제 저녁에 우리는 “{}” 이야기를 오래 나누며 웃었다",
    "할머니는 늘 “{}” 생각만 하면 마음이 놓인다고 하셨다",
    "아이가 공책에 “{}” 두 글자를 또박또박 적어 보였다",
)
WITH_PARTICLE = (
    "지난 여름에는 {}에서 만난 친구와 하루를 보냈다",
    "그날 아침 {}까지 걸어가는 길이 무척 길었다",
    "모두가 {}만 바라보며 조용히 기다리고 있었다",
)
INSIDE = (
    "전기차 감사과 중학교", "수산시장 책가방 소나무", "겨울바다 물김치 동물병원", "한국은행 보험회사 국립공원",
    "근무시간 휴대전화 단편영화", "전통음식 일간신문 소극장", "구내식당 연애편지 흔들의자", "비닐우산 봄노래 어촌마을",
    "새기차 풋사과 대학교", "재래시장 손가방 은행나무", "밤바다 배추김치 대형병원", "지방은행 건설회사 중앙공원",
)  # fmt: skip
JUDGED = 24


def records() -> list[Put]:
    """The texts, as `object_type`."""
    found = []
    for n, word in enumerate(WORDS):
        found.append(Put("object_type", f"quoted-{n}", {"text": QUOTED[n % 3].format(word)}))
        found.append(Put("object_type", f"particle-{n}", {"text": WITH_PARTICLE[n % 3].format(word)}))
    return found + [Put("object_type", f"inside-{n}", {"text": text}) for n, text in enumerate(INSIDE)]


def judgments(count: int = JUDGED, pinned: bool = False) -> list[Put]:
    """Two judgments for each of so many queries."""
    return [
        Put("judgment", f"{kind}-{n}", {
            "query": word, "resource_type": "object_type", "id": f"{kind}-{n}", "grade": grade, "pinned": pinned,
        })
        for n, word in enumerate(WORDS[:count])
        for kind, grade in (("quoted", 3), ("particle", 2))
    ]  # fmt: skip
