"""The report of a demo on a terminal."""

from __future__ import annotations

from itertools import zip_longest

from rich.text import Text

from shadowswitch.service.cli import output
from shadowswitch.service.daemon.text_files import counts_text
from shadowswitch.service.demo.branch_story import Story
from shadowswitch.service.demo.report import Build, Report, Stall
from shadowswitch.service.demo.search_story import SearchStory
from shadowswitch.service.demo.vector_story import VectorStory

PHASES = ("preparing", "copying", "catching_up", "validating", "switching")
PROBLEMS_SHOWN = 20


def print_report(report: Report) -> None:
    """Print the tables, then the verdict."""
    imported = report.imported
    output.say(
        "",
        f"{imported.files} files of {report.corpus} written as records ({output.size(imported.size_bytes)},"
        f" {report.import_s:.1f} s{f', {imported.unchanged} unchanged' if imported.unchanged else ''});"
        f" skipped: {counts_text(imported.skipped) or 'none'}",
    )
    _print_builds(report)
    _print_stalls(report)
    _print_figures(report)
    _print_verdict(report)


def _print_builds(report: Report) -> None:
    phases = [name for name in PHASES if any(name in build.phases_s for build in report.builds)]
    names = (name.replace("_", " ") for name in phases)
    output.print_table(
        "Builds: seconds of each phase, and milliseconds of the turn of the switch (sealed)",
        ["tokenizer", "records", *names, "total s", "sealed ms", "drained", "tries"],
        [_build_row(build, phases) for build in report.builds],
    )


def _build_row(build: Build, phases: list[str]) -> list[str]:
    switch = build.switch
    return [
        build.tokenizer,
        str(build.records),
        *(f"{build.phases_s.get(phase, 0.0):.2f}" for phase in phases),
        f"{build.seconds:.2f}",
        f"{switch.sealed_ms:.2f}" if switch.success else f"not switched: {switch.message}",
        str(switch.drained_changes),
        str(switch.attempts),
    ]


def _print_stalls(report: Report) -> None:
    def cells(stall: Stall) -> list[str]:
        return [str(stall.windows), f"{stall.p50_ms:.1f}", f"{stall.max_ms:.1f}"] if stall.windows else ["0", "", ""]

    rows = []
    for group, stalls in report.stalls.items():
        rows.append([group, "quiet time", *cells(stalls.quiet)])
        rows.append([group, "during builds", *cells(stalls.building)])
        rows.append([group, "around the switches", *cells(stalls.switching)])
    title = f"Longest time without a success, in windows of {report.window_s:g} s (ms)"
    output.print_table(title, ["", "", "windows", "median", "worst"], rows)


def _print_figures(report: Report) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.writes_by_kind.items())
    load_s = max(report.load_s, 1e-9)
    output.say(
        f"under load for {report.load_s:.0f} s: {report.writes} writes ({kinds}; {report.writes / load_s:.0f}/s,"
        f" p50 {report.write_p50_ms:.1f} ms, p99 {report.write_p99_ms:.1f} ms), {report.searches} searches"
        f" ({report.searches / load_s:.0f}/s) of {report.generations_read} generations; on {report.filesystem or '?'}"
    )
    output.say(
        f"the turn of a switch took {report.sealed_p50_ms:.2f} ms (p50), {report.sealed_max_ms:.2f} ms (max)"
        f" in {len(report.builds) - 1} switches under load"
    )


def _print_verdict(report: Report) -> None:
    audit = report.audit
    console = output.console()
    facts = (
        (f"{audit.records} records with acknowledged changes read back ({audit.deletes} of them deleted,"
         f" {audit.searches} searches for their marker words)", len(audit.problems), "lost, revived or wrong"),
        (f"{report.searches + report.failed_reads} reads", report.failed_reads, "failed"),
        ("every record and index in them", report.reads_back_in_time, "went back in time"),
        (f"{report.writes + report.failed_writes} writes", report.failed_writes, "failed"),
        (f"every invariant checked in {report.check_s:.1f} s", len(report.check), "findings"),
    )  # fmt: skip
    for fact, count, trouble in facts:
        mark = ("✗ ", "red") if count else ("✓ ", "green")
        console.print(Text.assemble(mark, f"{fact}: {count} {trouble}"), soft_wrap=True)
    for problem in report.problems[:PROBLEMS_SHOWN]:
        console.print(output.plain(f"    {problem}"), soft_wrap=True)
    if len(report.problems) > PROBLEMS_SHOWN:
        output.say(f"    and {len(report.problems) - PROBLEMS_SHOWN} more")
    verdict = ("all is well", "green bold") if report.ok else ("NOT WELL", "red bold")
    console.print(Text.assemble(verdict, f" after {report.seconds:.0f} s"))


def print_any(report: Report | Story | SearchStory | VectorStory) -> None:
    """Print the report of any demo."""
    if isinstance(report, Report):
        print_report(report)
    elif isinstance(report, Story):
        print_story(report)
    elif isinstance(report, SearchStory):
        print_search_story(report)
    else:
        print_vector_story(report)


def print_vector_story(story: VectorStory) -> None:
    """Print the steps, the hits by both models."""
    rows = [[step.title, step.details, f"{step.seconds:.3f}"] for step in story.steps]
    output.print_table("An index gets another embedding model", ["step", "what came of it", "seconds"], rows)
    for side in story.sides:
        lines = zip_longest(side.before, side.after, fillvalue="")
        output.print_table(f"{side.query}: the nearest", ["before", "after"], list(lines))
    output.say(*(f"problem: {problem}" for problem in story.problems[:PROBLEMS_SHOWN]))
    if story.ok:
        output.say(
            f"all is well: {story.written} records written and {story.searches} searches answered meanwhile, none lost"
        )


def print_search_story(story: SearchStory) -> None:
    """Print the steps, the hits before and after, the verdicts."""
    rows = [[step.title, step.details, f"{step.seconds:.3f}"] for step in story.steps]
    output.print_table("An index gets another analyzer", ["step", "what came of it", "seconds"], rows)
    for side in story.sides:
        lines = zip_longest(side.before, side.after, fillvalue="")
        output.print_table(f"{side.query}: the best hits", ["before", "after"], list(lines))
    output.say(f"the new index: {story.better}", f"the bad one: {story.refused}")
    output.say(*(f"problem: {problem}" for problem in story.problems[:PROBLEMS_SHOWN]))
    if story.ok:
        output.say(f"all is well: {story.written} notes were written meanwhile, none lost")


def print_story(story: Story) -> None:
    """Print the steps of a story, its conflict, then the verdict."""
    rows = [[step.title, step.details, f"{step.seconds:.3f}"] for step in story.steps]
    output.print_table("A branch, from its fork to its merge", ["step", "what came of it", "seconds"], rows)
    if story.conflict:
        versions = [[name, story.conflict[name]] for name in ("base", "ours", "theirs")]
        output.print_table(f"The conflict: {story.conflict['id']}, {story.conflict['fields']}", ["", "text"], versions)
    output.say(*(f"problem: {problem}" for problem in story.problems[:PROBLEMS_SHOWN]))
    if story.ok:
        output.say(f"all is well: {story.audited} records of branches and indexes compared, none lost, none revived")
