"""Five questions about the uploads, answered with a plot each.

    DATABASE_URL=postgresql://... python docs/five_questions.py FOLDER

Each `# %%` begins a cell, for editors that run them one by one. Plots go to FOLDER as PNG.
"""
# ruff: noqa: T201

# %% What is needed: the address of the database, and a folder
import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vuemantics_pipeline.status import analytics

DATABASE = os.environ["DATABASE_URL"]
FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "five_questions")
FOLDER.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE = "#3b6ea8", "#d9822b"


def plot(title: str, height: float = 3.2) -> Axes:
    _, axes = plt.subplots(figsize=(8, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def plot_rows(title: str, rows: int) -> Axes:
    """A plot of horizontal bars, as high as it has rows."""
    axes = plot(title, 1.1 + 0.4 * max(rows, 1))
    axes.set_ylim(-0.6, max(rows, 1) - 0.4)
    return axes


def save(axes: Axes, name: str) -> None:
    axes.figure.savefig(FOLDER / f"{name}.png", dpi=110)
    plt.close(axes.figure)


# %% The data: two frames serve most of it
uploads = analytics.uploads(DATABASE)
batches = analytics.batches(DATABASE)
print(f"{len(uploads)} uploads in {len(batches)} batches")

# %% 1. Which files fail, and why?
failed = uploads[uploads["status"] == "failed"]
failures = failed[["filename", "error_code", "error_message", "remedy", "attempts"]]
reasons = failed["error_code"].astype("string").fillna("not told").value_counts().sort_values()
print(f"\n1. {len(failed)} of {len(uploads)} uploads failed.")
print(failures.tail(20).to_string(index=False, max_colwidth=60) if len(failures) else "None.")

axes = plot_rows(f"{len(failed)} of {len(uploads)} uploads failed: why", len(reasons))
bars = axes.barh(reasons.index.to_list(), reasons.to_list(), color=BLUE, height=0.6)
axes.bar_label(bars, padding=3)
axes.set_xlabel("uploads")
axes.xaxis.get_major_locator().set_params(integer=True)
save(axes, "1_failures")

# %% 2. What does a photo cost, in seconds by stage?
# Of attempts that completed, without those that took over what another file had cost already.
attempts = analytics.attempts(DATABASE, status="completed")
described = attempts.loc[attempts["reused_from"].isna(), "attempt_id"]
stages = analytics.stages(DATABASE, status="completed")
of_photos = stages[(stages["file_type"] == "image") & stages["attempt_id"].isin(described)]
seconds = of_photos.groupby(of_photos["stage"].astype("string"))["seconds"]
photo_seconds = pd.DataFrame({"median": seconds.median(), "p95": seconds.quantile(0.95)})
photo_seconds = photo_seconds.sort_values("median")
whole_photo = of_photos.groupby("attempt_id")["seconds"].sum().median()
print(f"\n2. A photo costs {whole_photo:.2f} s (median).")
print(photo_seconds.round(3).to_string())

title = f"A photo costs {whole_photo:.2f} s: median by stage, and where 95 % end"
axes = plot_rows(title, len(photo_seconds))
labels = [f"{stage}  {median:.3f} s" for stage, median in photo_seconds["median"].items()]
axes.barh(labels, photo_seconds["median"], color=BLUE, height=0.6)
axes.plot(photo_seconds["p95"], labels, "|", color=ORANGE, markersize=16, markeredgewidth=2)
axes.set_xlabel("seconds (orange: 95th percentile)")
save(axes, "2_photo_seconds")

# %% 3. How long does a batch wait in the queue, by the hour at which it came?
begun = batches[batches["started_at"].notna()]
waits = begun.groupby(begun["created_at"].dt.hour.rename("hour"))["seconds_waiting_in_queue"]
wait_by_hour = pd.DataFrame(
    {"batches": waits.size(), "median": waits.median(), "p90": waits.quantile(0.9)}
).reindex(range(24))
print("\n3. Seconds in the queue, by hour (UTC).")
print(wait_by_hour.dropna().round(1).to_string())

axes = plot("Seconds in the queue by the hour at which a batch came: median, and 90th percentile")
axes.bar(wait_by_hour.index, wait_by_hour["median"], color=BLUE)
axes.plot(wait_by_hour.index, wait_by_hour["p90"], "_", color=ORANGE, markersize=12)
axes.set_xticks(range(0, 24, 3), [f"{hour:02}:00" for hour in range(0, 24, 3)])
axes.set_xlim(-0.8, 23.8)
axes.set_ylim(bottom=0)
axes.set_xlabel("hour, UTC")
axes.set_ylabel("seconds")
save(axes, "3_queue_by_hour")

# %% 4. Which users upload what?
users, types = uploads["user_id"].astype("string"), uploads["file_type"].astype("string")
by_user = pd.crosstab(users, types).reindex(columns=["image", "video"], fill_value=0)
by_user["megabytes"] = uploads["file_size"].astype("float64").groupby(users).sum() / 1e6
by_user = by_user.sort_values("megabytes", ascending=False)
print("\n4. Uploads and megabytes by user.")
print(by_user.round(1).to_string())

top = by_user.head(15)[::-1]
labels = [f"{user[:8]}  ({row.megabytes:.1f} MB)" for user, row in top.iterrows()]
axes = plot_rows(
    f"Uploads of {len(top)} of {len(by_user)} users, those with the most bytes", len(top)
)
axes.barh(labels, top["image"], color=BLUE, height=0.6, label="photos")
axes.barh(labels, top["video"], left=top["image"], color=ORANGE, height=0.6, label="videos")
axes.set_xlabel("uploads")
axes.xaxis.get_major_locator().set_params(integer=True)
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
save(axes, "4_users")

# %% 5. Did the new prompt raise audit scores?
# By the model in use now, on files that it described itself. These are different files under each
# prompt; where that matters, `vuemantics reanalyze` describes all of them with the new one.
scored = uploads[(uploads["status"] == "completed") & uploads["reused_from"].isna()]
scored = scored.sort_values("ended_at")
scored = (
    scored[scored["vision_model"] == scored["vision_model"].iloc[-1]] if len(scored) else scored
)
versions = scored["prompt_version"].astype("string")
scores = scored["audit_score"].astype("float64").groupby(versions, sort=False)
by_prompt = scores.agg(["size", "mean", "std"])
difference, margin = np.nan, np.nan
if len(by_prompt) > 1:
    old, new = by_prompt.iloc[-2], by_prompt.iloc[-1]
    difference = new["mean"] - old["mean"]
    # Welch: half the width of the 95 % interval, by the normal distribution.
    margin = 1.96 * np.sqrt(old["std"] ** 2 / old["size"] + new["std"] ** 2 / new["size"])
if np.isnan(margin):
    verdict = "There are not two prompts to compare yet."
elif abs(difference) <= margin:
    verdict = f"One cannot tell: {difference:+.1f} points, give or take {margin:.1f}."
else:
    answer = "Yes" if difference > 0 else "No"
    verdict = f"{answer}: {difference:+.1f} points, give or take {margin:.1f}."
print(f"\n5. {verdict}")
print(by_prompt.round(2).to_string())

axes = plot(f"Did the new prompt raise audit scores? {verdict}")
groups = [group.to_numpy() for _, group in scores]
if groups:
    axes.violinplot(groups, range(len(groups)), showmedians=False, showextrema=False)
    axes.plot(range(len(groups)), by_prompt["mean"], "o", color=ORANGE)
    axes.set_xticks(
        range(len(groups)),
        [f"{name}\n{int(row['size'])} uploads" for name, row in by_prompt.iterrows()],
    )
axes.set_ylim(0, 105)
axes.set_ylabel("audit score, 0-100 (dot: mean)")
save(axes, "5_prompts")
print(f"\nThe plots are in {FOLDER}.")
