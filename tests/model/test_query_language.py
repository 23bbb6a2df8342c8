"""The query language: what each part of it means, and that every string is a query."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowswitch.model.search.query import (
    PREFIX_TOKENS,
    TOKENS_MAX,
    Either,
    Every,
    Node,
    Term,
    parse_query,
    wanted_terms,
)


def words_of(texts: Sequence[str]) -> list[list[str]]:
    return [text.casefold().split() for text in texts]


def parsed(query: str) -> Node | None:
    return parse_query(query, words_of, {"title"})


def shown(node: Node | None) -> str:
    """A tree in a notation of its own: `&`, `|` and `!` with every parenthesis."""
    if node is None:
        return ""
    if isinstance(node, Term):
        text = f"<{node.text}>" if node.is_phrase else node.text
        return (f"{node.field}:" if node.field else "") + text + ("*" if node.is_prefix else "")
    if isinstance(node, Either):
        return f"({' | '.join(map(shown, node.parts))})"
    return f"({' & '.join([*map(shown, node.parts), *('!' + shown(part) for part in node.without)])})"


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("a", "a"),
        ("a b", "(a & b)"),
        ("a AND b", "(a & b)"),
        ("a and b or c", "(a & and & b & or & c)"),
        ("a OR b", "(a | b)"),
        ("a b OR c d", "((a & b) | (c & d))"),
        ("(a OR b) c", "((a | b) & c)"),
        ("a (b OR (c d))", "(a & (b | (c & d)))"),
        ("(a) ((b))", "(a & b)"),
        ("a -b", "(a & !b)"),
        ("a NOT b", "(a & !b)"),
        ("NOT b a", "(a & !b)"),
        ("a -(b OR c)", "(a & !(b | c))"),
        ("a (NOT b)", "(a & !b)"),
        ("a OR -b", "a"),
        ("NOT a", ""),
        ("-a -b", ""),
        ("a NOT (NOT b)", "a"),
        ('"a b" c', "(<a b> & c)"),
        ('"a b', "<a b>"),
        ('"a b"*', "<a b>*"),
        ("lo*", "lo*"),
        ("title:lo* b", "(title:lo* & b)"),
        ('title:"a b"', "title:<a b>"),
        ("title:(a OR b) c", "((title:a | title:b) & c)"),
        ("-title:a b", "(b & !title:a)"),
        ("body:a", "body:a"),
        ("title: a", "(title: & a)"),
        ("http://x", "http://x"),
        ("f(x)", "f(x)"),
        ("(f(x) OR g)", "(f(x) | g)"),
        ("c++ c# a-b x_y", "(c++ & c# & a-b & x_y)"),
        ("--flag -", "(--flag & -)"),
        (":-) ;(", "(:- & ;()"),
        ("NOT", "NOT"),
        ("OR", "OR"),
        ("AND AND", "AND"),
        ("OR a", "(OR & a)"),
        ("a OR", "(a & OR)"),
        ("a OR OR b", "((a & OR) | b)"),
        ("a OR NOT", "(a | NOT)"),
        ("(OR) a", "(OR & a)"),
        ("", ""),
        ("()", ""),
        (")(", ""),
        ("(((a", "a"),
        ("a))", "a"),
        ('* ** ""', ""),
        ("\0a\0", "a"),
        ("e\u0301", "é"),
        ("\ud800", "?"),
    ],
)  # fmt: skip
def test_a_query_means(query: str, tree: str) -> None:
    assert shown(parsed(query)) == tree


def test_deep_parentheses_are_left_out_and_the_rest_stays() -> None:
    assert shown(parsed("(" * 1900 + "a OR b" + ")" * 1900)) == "(a | b)"
    assert shown(parsed("(a " * 300 + ")" * 300)).count("a") == 1  # one word in one sense, however deep


def test_what_counts_of_a_long_query_is_its_beginning() -> None:
    many = parsed(" ".join(f"w{number}" for number in range(900)))
    assert wanted_terms(many) == [Term(f"w{number}") for number in range(TOKENS_MAX)]
    prefixes = parsed(" ".join(f"w{number}*" for number in range(900)))
    assert wanted_terms(prefixes) == [Term(f"w{number}", True) for number in range(TOKENS_MAX // PREFIX_TOKENS)]
    assert parsed("x" * 5000) is None
    assert shown(parsed("a b " + "x" * 5000)) == "(a & b)"
    assert shown(parsed("a " * 20 + "A " * 20 + "b")) == "(a & b)"
    assert shown(parsed(" OR ".join(["a"] * 20))) == "a"
    assert len(wanted_terms(parsed(" OR ".join(f"a{number} b" for number in range(40))))) == 19


def test_the_terms_that_a_hit_may_have_leave_out_what_is_excluded() -> None:
    assert wanted_terms(parsed("a -b (c OR d*)")) == [Term("a"), Term("c"), Term("d", True)]
    assert wanted_terms(None) == []


SCRAPS = ["a", "b ", " OR ", " NOT ", " AND ", "(", ")", '"', "*", "-", ":", "title:", " ", "\0", "é", "\ud800"]


@given(st.lists(st.sampled_from(SCRAPS), max_size=40).map("".join) | st.text(max_size=60))
def test_every_string_is_a_query(query: str) -> None:
    for node in wanted_terms(parsed(query)):
        assert node.text.strip()
        assert '"' not in node.text
        assert "\0" not in node.text


def holds(node: Node | None, text: str) -> bool:
    """Whether a text of words matches a tree, by the meaning of each part."""
    words = text.split()
    if node is None:
        return False
    if isinstance(node, Either):
        return any(holds(part, text) for part in node.parts)
    if isinstance(node, Every):
        return all(holds(part, text) for part in node.parts) and not any(holds(part, text) for part in node.without)
    sought = node.text.split()
    return any(words[start : start + len(sought)] == sought for start in range(len(words)))


@given(
    query=st.recursive(
        st.sampled_from("abc"),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: f"({two[0]} OR {two[1]})"),
            st.tuples(inner, inner).map(lambda two: f"({two[0]} {two[1]})"),
            st.tuples(inner, inner).map(lambda two: f"({two[0]} NOT {two[1]})"),
        ),
        max_leaves=8,
    ),
    text=st.sets(st.sampled_from("abc")).map(" ".join),
)
def test_a_query_with_every_parenthesis_means_what_python_makes_of_it(query: str, text: str) -> None:
    expected = eval(_python(query), {}, {letter: letter in text for letter in "abc"})
    assert holds(parsed(query), text) is expected


def _python(query: str) -> str:
    found: list[str] = []
    for token in query.replace("(", " ( ").replace(")", " ) ").split():
        operand = token not in (")", "OR", "NOT")
        if operand and found and found[-1] not in ("(", "or", "and", "and not"):
            found.append("and")
        found.append({"OR": "or", "NOT": "and not"}.get(token, token))
    return " ".join(found)
