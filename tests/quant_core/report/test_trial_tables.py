from quant_core.report.render import render_html
from quant_core.report.trial_tables import trial_tables
from quant_core.spec import AccuracyBand, BandEvaluation, BandSearch, LayerMove, PlanTrial, RefinementRound


def trial(name, chosen):
    return PlanTrial(
        name=name, predicted_loss=0.01, measured_loss=0.03, stderr=0.002, bytes=200_000, effective_bits=4.5,
        samples=96, chosen=chosen,
    )  # fmt: skip


def test_what_was_tried_is_told_and_escaped(job):
    report, table, front = job()
    assert trial_tables(report) == []
    band = BandSearch(
        band=AccuracyBand(metric="drop", limit=0.005),
        samples=320,
        labelled=True,
        evaluations=tuple(
            BandEvaluation(
                bytes=size, predicted_loss=0.01, effective_bits=4, value=drop, low=drop - 0.02, high=drop + 0.02,
                bound=drop + 0.03, inside=drop <= 0.005,
            )
            for size, drop in ((300_000, 0.0), (150_000, 0.031), (200_000, 0.003))
        ),
        chosen=2,
        confidence=0.9,
        met=True,
        reason="the smallest file measured.",
    )  # fmt: skip
    move = LayerMove(name="<b>conv</b>", before=4, after=32)
    step = RefinementRound(neighbours=9, tried=2, before=0.03, after=0.02, moves=(move,))
    report = report.model_copy(
        update={
            "trials": (trial("optimal", False), trial("uniform 4 bits", False), trial("refined", True)),
            "refinement": (step,),
            "band": band,
        }
    )
    plans, rounds, files = trial_tables(report)
    assert plans.chosen == 2
    assert plans.rows[1][:3] == ("uniform 4 bits", "200 KB", "4.50")
    assert "4 → float" in rounds.rows[0][4]
    assert files.rows[1][3:] == ("3.10 %", "1.10 % to 5.10 %", "–", "6.10 %", "no")
    assert files.head[-2] == "90 % bound"
    assert "a drop of at most 0.5%" in files.note
    page = render_html(report, table, front)
    assert "Files held against the accuracy band" in page
    assert "&lt;b&gt;conv&lt;/b&gt;" in page
    assert page.count('class="chosen"') == 2
