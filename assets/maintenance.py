"""Keeping the lake quick, as an asset and every night on a schedule that a person turns on."""

import dagster as dg

from assets.resources import Settings
from stepwell.maintenance import maintain


@dg.asset(deps=["events", "trajectories", "steps"], group_name="keeping", kinds={"deltalake"})
def maintenance(settings: Settings) -> dg.MaterializeResult[None]:
    """Small files compacted, checkpoints written, old files of folds removed; no version of any other table is lost."""
    done = maintain(settings.lake())
    columns = ("table", "version", "n_files", "n_files_after", "checkpoint", "vacuumed")
    records = [dg.TableRecord({c: row[c] for c in columns}) for row in (one.row() for one in done)]
    return dg.MaterializeResult(
        metadata={"tables": dg.MetadataValue.table(records), "compacted": sum(len(one.due) for one in done)}
    )


nightly = dg.ScheduleDefinition(
    name="nightly_maintenance", target=dg.AssetSelection.assets("maintenance"), cron_schedule="0 3 * * *"
)
