"""A verdict in at most 25 lines of plain text."""

from __future__ import annotations

from typing import Any

#: What to do about an inconclusive verdict, by what is missing.
_MORE = "Raise `seeds` and run again: only the new trials run."


def summarise(verdict: dict[str, Any]) -> str:
    """The text of a verdict's plain fields (``Verdict.as_dict()``)."""
    details = verdict["details"]
    mark = "  (exploratory)" if verdict["exploratory"] else ""
    lines = [
        f"Do local minima generalise like global ones? {verdict['metric']}, margin ± {verdict['margin']:g}, "
        f"alpha {verdict['alpha']:.4g}",
        f"Verdict     {verdict['verdict']}{mark}",
        f"Why         {verdict['reason']}",
        _trials(verdict),
        _excluded(verdict),
        _reference(verdict),
        *_estimate(verdict),
        *_repeated(details.get("repeated") or {}),
        _trend(verdict),
        f"Splits      {verdict['splits']}",
        _to_do(verdict),
    ]
    return "\n".join(line for line in lines if line)


def _trials(verdict: dict[str, Any]) -> str:
    details = verdict["details"]
    text = (
        f"Trials      {details['n_trials']}: compared {verdict['n_local']} local with {verdict['n_global']} global "
        f"minima in {verdict['n_configs']} configuration{'s' if verdict['n_configs'] != 1 else ''}"
    )
    dropped = details.get("dropped") or []
    if not dropped:
        return text
    return f"{text}; {len(dropped)} dropped, with fewer than 2 trials in a group"


def _excluded(verdict: dict[str, Any]) -> str:
    counts = verdict["excluded"]
    if not counts:
        return "Excluded    none"
    shown = [f"{count} {reason}" for reason, count in list(counts.items())[:6]]
    more = [f"{len(counts) - 6} more reasons"] if len(counts) > 6 else []
    worst = verdict["details"].get("worst_case")
    bounds = f"; worst case [{worst['low']:.4g}, {worst['high']:.4g}]" if worst else ""
    return f"Excluded    {sum(counts.values())}: {', '.join([*shown, *more])}{bounds}"


def _reference(verdict: dict[str, Any]) -> str:
    words = {"given": "given by the request", "known": "known from theory", "found": "the lowest minimum found"}
    sources = ", ".join(words.get(source, source) for source in verdict["reference_source"].split(" and "))
    value, band = verdict["reference"], verdict["band"]
    if value is None:
        return "Reference   none: no minimum was found"
    shown = f"{len(value)} landscapes, one each" if isinstance(value, dict) else f"{value:.8g}"
    width = "" if isinstance(band, dict) or band is None else f", band {band:.3g}"
    below = sum(item["minima_below"] for item in (verdict["details"].get("references") or {}).values())
    alarm = f"; {below} minima lie below it by more than the band: it is not the minimum" if below else ""
    return f"Reference   {shown} ({sources}{width}){alarm}"


def _estimate(verdict: dict[str, Any]) -> list[str]:
    if verdict["estimate"] is None:
        return ["Estimate    none"]
    effect = "" if verdict["effect_size"] is None else f" (Hedges' g {verdict['effect_size']:.3g})"
    lines = [
        f"Estimate    local − global = {verdict['estimate']:.5g}{effect}",
        f"            {_percent(1 - 2 * verdict['alpha'])} [{verdict['ci_low']:.5g}, {verdict['ci_high']:.5g}] against "
        f"± {verdict['margin']:g}: p(not equivalent) {verdict['p_equivalence']:.3g}",
        f"            {_percent(1 - verdict['alpha'])} [{verdict['diff_low']:.5g}, {verdict['diff_high']:.5g}] against "
        f"0: p(no difference) {verdict['p_difference']:.3g}",
    ]
    if verdict["heterogeneity_p"] is not None:
        lines.append(f"            configurations differ: Cochran's Q p {verdict['heterogeneity_p']:.3g}")
    return lines


def _repeated(repeats: dict[str, Any]) -> list[str]:
    lines = []
    for name, item in repeats.items():
        if item["n_local"] + item["n_global"] == 0:
            continue  # not measured
        label = "over distinct minima" if name == "class_id" else f"at {name}"
        counts = f"{item['n_local']} local, {item['n_global']} global"
        if item["estimate"] is None:
            lines.append(f"Repeated    {label}: too few of a group in every configuration ({counts})")
        else:
            lines.append(
                f"Repeated    {label}: {item['estimate']:.5g} [{item['ci_low']:.5g}, {item['ci_high']:.5g}] ({counts})"
            )
    return lines


def _trend(verdict: dict[str, Any]) -> str:
    if verdict["tau"] is None:
        return ""
    return (
        f"Band-free   Kendall's tau with the objective's excess {verdict['tau']:.3f} "
        f"[{verdict['tau_low']:.3f}, {verdict['tau_high']:.3f}]"
    )


def _to_do(verdict: dict[str, Any]) -> str:
    if verdict["verdict"] != "inconclusive":
        return ""
    details = verdict["details"]
    needed, present = verdict["trials_needed"], details["n_trials"]
    if sum(verdict["excluded"].values()) > 0.05 * present:
        return "To do       Let the excluded trials converge (more steps, a looser tolerance) or mend what failed."
    if verdict["estimate"] is None and details["n_local_all"] == 0:
        return "To do       No local minimum was met: a landscape or optimiser that finds some is needed."
    if needed is None:
        return f"To do       {_MORE}"
    if needed <= present:
        return (
            f"To do       Mend the reason above first: {needed} trials give 80 % power at no difference, and "
            f"{present} are in."
        )
    return f"To do       {needed} trials give 80 % power at no difference ({present} are in). {_MORE}"


def _percent(level: float) -> str:
    return f"{100 * level:.4g} %"
