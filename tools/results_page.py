#!/usr/bin/env python3
"""Renews the figures in docs/results.md from docs/results/*.json: what stands between <!-- figures NAME --> and <!-- end -->.

tools/results_page.py [--check]: with --check nothing is written, and the exit code is 1 when something would change."""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"


def number(v, digits=3):
    if v is None:
        return "–"
    if isinstance(v, dict):
        v = v["mean"]
    if abs(v) >= 1e8:
        return f"{v:.{digits}g}".replace("e+", "e")
    return f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.{digits}g}"


def signed(v):
    return ("−" if v < 0 else "+") + f"{abs(v):.4f}"


def loss(m):
    if not m:
        return "–"
    return f"{m['mean']:.4f}" + (f" ± {m['error']:.4f}" if m["error"] is not None else "")


def difference(d):
    if not d or d["mean"] is None:
        return ""
    return signed(d["mean"]) + (f" [{signed(d['low'])}, {signed(d['high'])}]" if d["low"] is not None else "")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(str(c) for c in r) + " |" for r in rows]


def figures(r):
    rows = r["summary"]["variants"]
    columns = [("variant", lambda v: v["name"] + (f" ({v['failed']} failed)" if v["failed"] else "")), (f"validation loss ({r['unit']})", lambda v: loss(v.get("val_loss"))), ("difference [95 %]", lambda v: difference(v.get("difference")))]
    if any("gain_max" in v for v in rows):
        columns += [("gain, token mean: smallest to largest", lambda v: f"{number(v['gain_min'])} to {number(v['gain_max'])}" if "gain_max" in v else "1"),
                    ("of any token", lambda v: f"{number(v['gain_min_token'])} to {number(v['gain_max_token'])}" if v["gain_max_token"] is not None else "1")]
    if any("maxvio" in v for v in rows):
        columns.append(("MaxVio", lambda v: number(v.get("maxvio"))))
    if r["study"].get("axes", {}).get("x") in ("combinations", "kv_bytes"):
        columns.append(({"combinations": "combinations", "kv_bytes": "cache, bytes a token"}[r["study"]["axes"]["x"]], lambda v: number(v.get(r["study"]["axes"]["x"]))))
    columns += [("parameters", lambda v: number(v.get("parameters"))), ("active", lambda v: number(v.get("active_parameters"))), ("ms a step", lambda v: number(v.get("step_ms"))), ("MiB", lambda v: number(v.get("rss_mib")))]
    lines = table([name for name, _ in columns], [[f(v) for _, f in columns] for v in rows])
    if "best" in r["summary"]:
        lines += [""] + table(["group", "best of three rates", "validation loss", "difference [95 %]"], [[b["group"], b["variant"], loss(b["val_loss"]), difference(b.get("difference"))] for b in r["summary"]["best"]])
    runs = [run for v in r["variants"] for run in v["runs"]]
    seconds = sum(run["figures"]["seconds"] for run in runs if "figures" in run)
    s, m = r["settings"], r["machine"]
    seeds = r["study"]["seeds"]
    command = re.sub(r"^\S*birkhoff", "birkhoff", r["command"])
    lines += ["", f"`{command}`: {len(runs)} runs, {seeds} seed{'s' * (seeds > 1)}, {s['steps']} steps of {s['batch_size']} x {s['seq_len']} bytes, "
              f"{seconds:,.0f} s of training in all, {m['side_by_side']} at a time with {m.get('threads')} thread{'s' * (m.get('threads') != 1)} each; {m.get('cpu')}, {m['cores']} cores, {m.get('isa')}; {r['time'][:10]}."]
    return "\n".join(lines)


def main():
    page = PAGE.read_text()

    def renewed(match):
        path = ROOT / "docs" / "results" / f"{match[1]}.json"
        return f"<!-- figures {match[1]} -->\n{figures(json.loads(path.read_text()))}\n<!-- end -->" if path.exists() else match[0]

    new = re.sub(r"<!-- figures (\S+) -->\n.*?<!-- end -->", renewed, page, flags=re.S)
    if "--check" in sys.argv[1:]:
        return int(new != page)
    if new != page:
        PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
