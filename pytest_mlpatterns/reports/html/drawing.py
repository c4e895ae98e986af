"""Charts as SVG, and as tables with bars, written into the page: no script draws them. Pure."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import Frame, FunctionTime, ProfileRecord
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Track, Unit, printed, tick_text
from pytest_mlpatterns.reports.html.fragments import Content, Markup, row_of, scrolling, table_of, tag
from pytest_mlpatterns.reports.text.where import profiling_cost, signed_duration
from pytest_mlpatterns.units import format_count, format_duration
from pytest_mlpatterns.wording import count

_ROW = 20  # Height of a function, in pixels
_LEAST = 0.004  # Share of the whole from which on a function is drawn; the table has the narrower ones
_NAMED = 0.03  # Share of the whole from which on a function has room for its name
_NOTABLE = 0.1  # Change of a function from which on it has a colour
_COMPARED = ("Function", "Before", "Now", "Change", "95 % interval", "Itself")
_ALONE = ("Function", "Now", "Itself")


def flame_graph(profile: ProfileRecord) -> Markup | None:
    """The flame graph of a profile and its functions as a table; why there is none, if something is known of it."""
    if not profile.nodes:
        return tag("p", profile.note[:1].upper() + profile.note[1:], class_="muted") if profile.note else None
    legend = [tag("li", tag("i", class_=kind), kind) for kind in ("slower", "faster", "new")]
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("b", "Time per request by function"),
            tag("span", sampled_line(profile)),
            tag("ul", *legend) if profile.compared else None,
        ),
        _drawn(profile),
        function_table(profile),
        class_="flame",
    )


def _drawn(profile: ProfileRecord) -> Markup:
    """A bar for each stack, below its caller and as wide as its present time with all that it called."""
    nodes = profile.nodes
    now, before = [node.now_ns for node in nodes], [node.before_ns for node in nodes]
    for at in range(len(nodes) - 1, -1, -1):  # a caller stands before its callees
        if (parent := nodes[at].parent) >= 0:
            now[parent] += now[at]
            before[parent] += before[at]
    whole = sum(time for node, time in zip(nodes, now, strict=True) if node.parent < 0) or 1.0
    begins, depths = {-1: 0.0}, {-1: -1}
    bars: list[Markup] = []
    deepest = 0
    for at, node in enumerate(nodes):
        share = now[at] / whole
        begins[at] = left = begins[node.parent]
        begins[node.parent] += share
        depths[at] = depth = depths[node.parent] + 1
        if share >= _LEAST:
            deepest = max(deepest, depth)
            parts = _bar(profile, profile.frames[node.frame], (before[at], now[at], whole))
            wide, top = f"{100 * share:.2f}%", _ROW * depth
            bars.append(tag("svg", *parts, x=f"{100 * left:.2f}%", y=top, width=wide, height=_ROW))
    return tag("svg", *bars, role="img", aria_label="Flame graph", width="100%", height=_ROW * (deepest + 1))


def _bar(profile: ProfileRecord, frame: Frame, times: tuple[float, float, float]) -> list[Markup | None]:
    """A function in a drawing of its own, so that its name ends where it ends, at any width of the page."""
    before, now, whole = times
    spent = f"{format_duration(before)} → {format_duration(now)}" if profile.compared else format_duration(now)
    return [
        tag("title", f"{frame.placed}: {spent} per request"),
        tag("rect", width="100%", height=_ROW - 1, class_=_kind(before, now, whole) if profile.compared else "same"),
        tag("text", frame.function, x=4, y=14) if now / whole > _NAMED else None,
    ]


def _kind(before: float, now: float, whole: float) -> str:
    """What became of a function, as a colour; what is a small part of the whole has none."""
    if abs(now - before) < _NOTABLE * max(before, _NOTABLE * whole):
        return "same"
    return "new" if not before else "slower" if now > before else "faster"


def sampled_line(profile: ProfileRecord) -> str:
    """What the profile is made of: both totals, the profiler, its rate, and what it cost."""
    now = sum(node.now_ns for node in profile.nodes)
    before = sum(node.before_ns for node in profile.nodes)
    total = f"{format_duration(before)} → {format_duration(now)}" if profile.compared else format_duration(now)
    parts = [f"{total} in all", f"sampled by {profile.profiler}" if profile.profiler else ""]
    if profile.rate_hz:
        parts.append(f"{format_count(profile.rate_hz)} times a second")
    if profile.blocks:
        parts.append(f"{count(profile.blocks, 'short load')}{' of each side' if profile.compared else ''}")
    parts.append(profiling_cost(profile, "while it was sampled"))
    if profile.lost:
        parts.append(f"{profile.lost:,} of {profile.samples:,} samples without a whole stack")
    return "; ".join([", ".join(part for part in parts if part), *profile.notes])


def function_table(profile: ProfileRecord) -> Markup | None:
    """Each function with its time per request on both sides, callees included, and its own; None without one."""
    if not profile.functions:
        return None
    rows = [_row(profile.frames[one.frame], one, compared=profile.compared) for one in profile.functions]
    caption = f"{count(len(rows), 'function')} as a table, per request"
    heads = _COMPARED if profile.compared else _ALONE
    table = table_of(heads, rows, name="Time of the functions", class_="figures functions")
    return tag("details", tag("summary", caption), table)


def _row(frame: Frame, time: FunctionTime, *, compared: bool) -> Markup:
    named = Markup(tag("code", frame.function) + (tag("div", frame.place, class_="less") if frame.place else ""))
    own, now = format_duration(time.self_now_ns), format_duration(time.now_ns)
    if not compared:
        return row_of(named, now, own)
    if time.change is None:
        change, interval = tag("span", "–", class_="muted"), "–"
    else:
        change = tag("span", signed_duration(time.change.value), class_=_tone(time.change))
        interval = f"{signed_duration(time.change.low)} to {signed_duration(time.change.high)}"
    return row_of(named, format_duration(time.before_ns), now, change, interval, own)


def _tone(change: Estimate) -> str | None:
    """The colour class of a change that is not noise."""
    if change.low > 0:
        return "worse"
    return "better" if change.high < 0 else None


_WIDTH, _HEIGHT = 400.0, 170.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 8.0, 12.0, 34.0
_TRACK = 30.0  # Height of one of several courses
_LOG_FROM = 12.0  # A range this many times its lowest value is read better on a logarithmic scale
_MOST_TICKS = 5  # Most ticks of an axis
_MOST_TITLES = 24  # Most places of a chart that have their values as a title
_MOST_NARROW = 5  # Most columns of a table beside other charts
_MOST_FAR = 20  # Of this number of runs one may be far off at each end of a course
_TONES = ("present", "other", "accent")  # Classes of the series of a chart, in their order


class Scale(Struct, frozen=True):
    """Values on a stretch of pixels."""

    low: float  # value at its start
    high: float  # value at its end
    start: float  # first pixel
    end: float  # last pixel
    is_log: bool = False  # whether equal factors are equally long

    def at(self, value: float) -> float:
        """The pixel of a value; of one beyond an end, that end."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        inside = min(max(value, self.low), self.high)
        place = math.log(inside) if self.is_log else inside
        return self.start + (self.end - self.start) * (place - low) / (high - low)


def scale_of(values: Iterable[float], start: float, end: float, *, tight: bool = False) -> Scale:
    """A scale that holds these values: from zero, or logarithmic if they differ much."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    if low > 0 and high / low > _LOG_FROM and not tight:
        return Scale(low / 1.06, high * 1.06, start, end, is_log=True)
    margin = 0.0 if not tight else 0.06 * (high - low) or 0.02 * abs(high)
    low, high = (low - margin, high + margin) if tight else (min(low, 0.0), 1.04 * max(high, 0.0))
    return Scale(low, high if high - low > sys.float_info.min else low + 1.0, start, end)


def ticks_of(scale: Scale, unit: Unit) -> list[float]:
    """A few round values of a scale: of sizes, powers of 1024 are round."""
    if scale.is_log:
        for steps in ((1, 2, 5), (1, 3), (1,)):
            decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
            found = [step * 10.0**decade for decade in decades for step in steps]
            found = [tick for tick in found if scale.low <= tick <= scale.high]
            if len(found) <= _MOST_TICKS:
                break
        return found[:: -(-len(found) // _MOST_TICKS)] if found else [scale.low, scale.high]
    base = 1024.0 ** int(math.log(scale.high, 1024)) if unit == "size" and scale.high >= 1 else 1.0
    least = (scale.high - scale.low) / base / (_MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = base * next(one * power for one in (1, 2, 5, 10) if one * power >= least * 0.999)
    step = max(step, 1.0) if unit == "count" and scale.high >= _MOST_TICKS else step
    return [number * step for number in range(math.ceil(scale.low / step), math.floor(scale.high / step) + 1)]


def chart_figure(chart: Chart) -> Markup:
    """A chart with its title and its summary."""
    is_table = chart.kind in ("bars", "ranges")
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("b", chart.title),
            tag("span", chart.summary) if chart.summary else None,
            _legend(chart) if chart.kind in ("bars", "histogram") else None,
        ),
        _DRAWN[chart.kind](chart),
        class_=f"{chart.kind} wide" if is_table and len(chart.columns) > _MOST_NARROW else chart.kind,
    )


def _bars(chart: Chart) -> Markup:
    """A row for each name, with a bar for its values in the unit of the first."""
    unit = chart.columns[1].unit
    drawn = [place for place, column in enumerate(chart.columns) if column.unit == unit]
    most = max((_number(row[place]) for row in chart.rows for place in drawn), default=0.0) or 1.0
    rows = []
    for row in chart.rows:
        widths = [_n(100 * _number(row[place]) / most) for place in drawn]
        strip = [
            tag("path", class_=tone, d=f"M0 {6 * at + 1}h{width}v4H0z")
            for at, (tone, width) in enumerate(zip(_TONES, widths, strict=False))
        ]
        rows.append((_texts(chart, row), strip))
    return _table(chart, [column.name for column in chart.columns], rows)


def _texts(chart: Chart, row: Sequence[Cell]) -> list[str]:
    return [printed(column.unit, cell) for column, cell in zip(chart.columns, row, strict=True)]


def _ranges(chart: Chart) -> Markup:
    """A row for each name, with its value as a point on its interval: value, from, to, and more cells."""
    inside = [value for row in chart.rows for cell in row[1:4] if (value := _known(cell)) is not None]
    scale = scale_of(inside, 2, 98, tight=True)
    heads = [column.name for column in chart.columns]
    ends = "interval" if heads[2:4] == ["from", "to"] else f"{heads[2]} to {heads[3]}"
    rows = []
    for row in chart.rows:
        value, low, high = (scale.at(_number(cell)) for cell in row[1:4])
        texts = _texts(chart, row)
        strip = [tag("path", class_="range", d=f"M{_n(low)} 5H{_n(high)}M{_n(value)} 1v8")]
        rows.append(([*texts[:2], f"{texts[2]} to {texts[3]}", *texts[4:]], strip))
    return _table(chart, [*heads[:2], ends, *heads[4:]], rows)


def _table(chart: Chart, heads: Sequence[str], rows: Iterable[tuple[Sequence[str], Sequence[Markup]]]) -> Markup:
    """The texts of each row, with a drawing behind its name."""
    head = tag("tr", tag("th", heads[0]), tag("td"), *(tag("th", text) for text in heads[1:]))
    body = []
    for (name, *cells), parts in rows:
        box = f"0 0 100 {max(6 * len(parts), 10)}"
        drawn = tag("svg", *parts, viewBox=box, preserveAspectRatio="none", aria_hidden="true")
        body.append(tag("tr", tag("td", name), tag("td", drawn, class_="drawn"), *(tag("td", cell) for cell in cells)))
    return scrolling(tag("table", tag("thead", head), tag("tbody", *body)), chart.title)


def _tracks(chart: Chart) -> Markup:
    """Courses one below the other over one axis; the words have the lowest and the highest value of each line."""
    x = Scale(0.0, max(row[0] for track in chart.tracks for row in track.rows) or 1.0, 0.0, _WIDTH)
    return Markup("".join(tag("div", _extents(track), _track(track, chart, x)) for track in chart.tracks))


def _extents(track: Track) -> Markup:
    words: list[Content] = [f"{track.title}: "]
    for at, (name, line) in enumerate(zip(track.names, _lines_of(track), strict=True)):
        words += [
            "; " if at else None,
            tag("i", class_=_TONES[at]) if len(track.names) > 1 else None,
            f"{name} {printed(track.unit, min(line))} to {printed(track.unit, max(line))}",
        ]
    return tag("p", *words, f"; {track.note}" if track.note else None)


def _track(track: Track, chart: Chart, x: Scale) -> Markup:
    high = max(map(max, _lines_of(track)))
    y = Scale(0.0, high or 1.0, _TRACK - 1, 1)
    shapes = [
        tag(
            "rect",
            tag("title", name),
            x=_n(x.at(begin)),
            y=0,
            width=_n(max(x.at(end) - x.at(begin), 1.5)),
            height=_n(_TRACK),
        )
        for begin, end, name in chart.spans
    ]
    for tone, line in zip(_TONES, _lines_of(track), strict=False):
        points = [(x.at(row[0]), y.at(value)) for row, value in zip(track.rows, line, strict=True)]
        steps = "".join(f"H{_n(right)}V{_n(top)}" for right, top in points[1:])
        shapes.append(tag("path", class_=tone, d=_path(points[:1]) + steps if track.is_level else _path(points)))
    box = f"0 0 {_n(_WIDTH)} {_n(_TRACK)}"
    return tag("svg", *shapes, viewBox=box, preserveAspectRatio="none", role="img", aria_label=track.title)


def _lines_of(track: Track) -> list[tuple[float, ...]]:
    return [*zip(*track.rows, strict=True)][1:]


def _history(chart: Chart) -> Markup:
    """The runs of a history: value, interval and level of each, the borders of its segments, and what changed."""
    rows, unit = chart.rows, chart.columns[3].unit
    low, high = _number(rows[0][0]), _number(rows[-1][0])
    x = Scale(low, high if high > low else low + 1.0, _LEFT, _WIDTH - _RIGHT)
    y = scale_of(_near(rows), _HEIGHT - _BOTTOM, _TOP, tight=True)
    ends = [(row[0], row[4], row[5]) for row in rows if row[4] is not None and row[5] is not None]
    area = [(x.at(_number(run)), y.at(_number(low))) for run, low, _ in ends]
    area += [(x.at(_number(run)), y.at(_number(high))) for run, _, high in reversed(ends)]
    levels = [(x.at(_number(row[0])), y.at(_number(row[6]))) for row in rows if row[6] is not None]
    values = [(x.at(_number(row[0])), y.at(_number(row[3]))) for row in rows if row[3] is not None]
    drawn = [
        tag("path", class_="band", d=_path(area) + "z") if area else None,
        *_news(chart, x),
        tag("path", class_="present", d=_path(values)),
        *(
            tag("text", "▲" if value > y.high else "▼", x=_n(x.at(_number(row[0]))), y=_n(y.at(value) + 5))
            for row in rows
            if (value := _known(row[3])) is not None and not y.low <= value <= y.high
        ),
        tag("path", class_="level", d=_stepped(levels)),
    ]
    return _svg(chart, [*_axes(_Axis(x, "count", chart.axis), _Axis(y, unit)), *drawn, *_titles(chart, x)])


def _news(chart: Chart, x: Scale) -> list[Markup]:
    """Upright lines where a segment begins or something changed."""
    first = _number(chart.rows[0][0])
    marks = [_mark(x.at(at - 0.5), why, "border") for at, why in chart.borders if at > first]
    for change in chart.changes:
        if change.at >= first:
            middle, class_ = x.at(max(change.at - 0.5, first)), f"change {change.tone}"
            marks += [_mark(middle, change.label, class_), _above(middle, change.label, class_)]
    return marks


def _mark(at: float, title: str, class_: str) -> Markup:
    y2 = _n(_HEIGHT - _BOTTOM)
    return tag("line", tag("title", title), x1=_n(at), x2=_n(at), y1=_n(_TOP), y2=y2, class_=class_)


def _above(at: float, text: str, class_: str) -> Markup:
    return tag("text", text, x=_n(at), y=_n(_TOP - 3), class_=class_)


def _near(rows: Sequence[Sequence[Cell]]) -> list[float]:
    """The values that a course is drawn for: single runs that are far off stand at its edge."""
    values = sorted(value for row in rows if (value := _known(row[3])) is not None)
    far = len(values) // _MOST_FAR
    low, high = values[far], values[-1 - far]
    reach = high - low or abs(high)
    known = (value for row in rows for cell in row[3:7] if (value := _known(cell)) is not None)
    return [value for value in known if low - reach <= value <= high + reach]


def _histogram(chart: Chart) -> Markup:
    """The share of each bin as a bar, the other side's as an outline, and percentiles as marks."""
    low, high = _number(chart.rows[0][0]), _number(chart.rows[-1][1])
    x = Scale(low, high if high > low else low * 1.01 + 1, _LEFT, _WIDTH - _RIGHT, is_log=low > 0)
    y = scale_of([0.0, *(_number(cell) for row in chart.rows for cell in row[2:])], _HEIGHT - _BOTTOM, _TOP)
    bars: list[Markup] = []
    outline = f"M{_n(_LEFT)} {_n(y.start)}"
    for row in chart.rows:
        left, right, top = x.at(_number(row[0])), x.at(_number(row[1])), y.at(_number(row[2]))
        outline += f"V{_n(y.at(_number(row[3])))}H{_n(right)}" if len(row) > 3 else ""
        if any(row[2:]):
            shares = " and ".join(printed("ratio", cell) for cell in row[2:])
            text = f"{printed('duration', row[0])} to {printed('duration', row[1])}: {shares}"
            bars.append(
                tag("path", tag("title", text), d=f"M{_n(left)} {_n(y.start)}V{_n(top)}H{_n(right)}V{_n(y.start)}")
            )
    marks = []
    for name, value in _apart(chart.marks, x):
        marks.append(_mark(x.at(value), f"{name}: {printed('duration', value)}", "mark"))
        marks.append(_above(x.at(value), name, "mark"))
    other = tag("path", class_="other", d=outline) if "H" in outline else None
    axes = _axes(_Axis(x, "duration", chart.axis), _Axis(y, "ratio"))
    return _svg(chart, [*axes, tag("g", *bars, class_="block"), other, *marks])


def _apart(marks: Mapping[str, float], x: Scale) -> list[tuple[str, float]]:
    """Marks whose names have room beside each other."""
    kept: list[tuple[str, float]] = []
    for name, value in marks.items():
        if x.low <= value <= x.high and (not kept or x.at(value) - x.at(kept[-1][1]) > 24):
            kept.append((name, value))
    return kept


class _Axis(Struct, frozen=True):
    """A scale with the unit of its ticks and a name."""

    scale: Scale
    unit: Unit
    name: str = ""

    @property
    def ticks(self) -> list[tuple[float, str]]:
        return [(self.scale.at(tick), tick_text(self.unit, tick)) for tick in ticks_of(self.scale, self.unit)]


def _axes(x: _Axis, y: _Axis) -> list[Markup]:
    rules = "".join(f"M{_n(_LEFT)} {_n(at)}H{_n(_WIDTH - _RIGHT)}" for at, _ in y.ticks)
    upright = [tag("text", text, x=_n(_LEFT - 5), y=_n(at + 4)) for at, text in y.ticks]
    names: list[Markup] = []
    last, top = -math.inf, _HEIGHT - _BOTTOM
    for at, text in x.ticks:
        if at - last > 6.5 * len(text):
            edge = min(max(at, x.scale.start), x.scale.end - 3 * len(text) + 6)
            names.append(tag("text", text, x=_n(edge), y=_n(top + 14)))
            last = at
    names.append(tag("text", x.name, x=_n((x.scale.start + x.scale.end) / 2), y=_n(top + 29)))
    return [tag("path", class_="grid", d=rules), tag("g", *upright, class_="y"), tag("g", *names, class_="x")]


def _titles(chart: Chart, x: Scale) -> list[Markup]:
    """The values of some rows, for a pointer over their place; every row with news is one of them."""
    each = max(1, -(-len(chart.rows) // _MOST_TITLES))
    kept = [row for at, row in enumerate(chart.rows) if (at + 1) % each == 0 or row[-1]]
    places = [x.at(_number(row[0])) for row in kept]
    borders = [x.start, *((one + other) / 2 for one, other in pairwise(places)), x.end]
    boxes = []
    for (left, right), row in zip(pairwise(borders), kept, strict=True):
        texts = zip(chart.columns, _texts(chart, row), row, strict=True)
        words = "; ".join(f"{column.name} {text}" for column, text, cell in texts if cell is not None)
        shape = f"M{_n(left)} {_n(_TOP)}H{_n(right)}V{_n(_HEIGHT - _BOTTOM)}H{_n(left)}z"
        boxes.append(tag("path", tag("title", words), d=shape))
    return [tag("g", *boxes, class_="hit")]


def _svg(chart: Chart, parts: Iterable[Markup | None]) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {_n(_WIDTH)} {_n(_HEIGHT)}", role="img", aria_label=chart.title)


def _legend(chart: Chart) -> Markup | None:
    """Names of the series, if there are several."""
    first = 2 if chart.kind == "histogram" else 1
    unit = chart.columns[first].unit
    names = [column.name for column in chart.columns[first:] if column.unit == unit]
    if len(names) < 2:
        return None
    return tag("ul", *(tag("li", tag("i", class_=_TONES[min(at, 2)]), name) for at, name in enumerate(names)))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points) if points else ""


def _stepped(points: Sequence[tuple[float, float]]) -> str:
    """A level that changes at once, with a gap where it changes."""
    parts = [f"{'M' if not at or points[at - 1][1] != y else 'L'}{_n(x)} {_n(y)}" for at, (x, y) in enumerate(points)]
    return "".join(parts)


def _known(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, float | int) and math.isfinite(cell) else None


def _number(cell: Cell) -> float:
    return _known(cell) or 0.0


def _n(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


_DRAWN: Mapping[str, Callable[[Chart], Markup]] = {
    "bars": _bars,
    "ranges": _ranges,
    "tracks": _tracks,
    "history": _history,
    "histogram": _histogram,
}
